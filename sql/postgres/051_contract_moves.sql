-- What became of a contract's subscription: each move with its reason. Forward only. Times are epoch milliseconds.

CREATE TABLE contract_moves (
  serial     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  contract   text   NOT NULL REFERENCES catalog_contracts (id),
  kind       text   NOT NULL CHECK (kind IN ('move', 'trial_extended', 'notice')),
  from_state text   NOT NULL,
  to_state   text   NOT NULL,           -- the same one for an extension or a notice
  on_day     text   NOT NULL,           -- the calendar day from which it counts, in the zone of the contract
  detail     text,                      -- such as +7 d, or the last day
  reason     text   NOT NULL,
  actor      text   NOT NULL,
  made_at    bigint NOT NULL,
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX contract_moves_by_contract ON contract_moves (contract, serial);
CREATE TRIGGER contract_moves_stay BEFORE UPDATE OR DELETE ON contract_moves
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER contract_moves_stay_whole BEFORE TRUNCATE ON contract_moves
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
