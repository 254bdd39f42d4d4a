-- What a closing measured and what a draft says are read by releve alone, whole, and written by the hundred thousand: they are kept
-- packed (src/invoicing/pack.ts: a byte for the form, then JSON or its raw deflate) instead of being taken apart into jsonb. An
-- issued invoice is a document for everybody, and stays jsonb.
ALTER TABLE closings ADD COLUMN place int;
COMMENT ON COLUMN closings.place IS 'order of the measure among those of the contract; NULL until measured';
UPDATE closings SET place = (measured ->> 'order')::int WHERE measured IS NOT NULL;
DROP TRIGGER closings_release_usage_data ON closings;
ALTER TABLE closings ALTER COLUMN measured TYPE bytea USING '\x00'::bytea || convert_to(measured::text, 'UTF8');
CREATE TRIGGER closings_release_usage_data AFTER UPDATE ON closings FOR EACH ROW
  WHEN (OLD.measured IS NOT NULL AND NEW.measured IS NULL) EXECUTE FUNCTION release_usage_data();
-- Packed once; a second attempt would only cost.
ALTER TABLE closings ALTER COLUMN measured SET STORAGE EXTERNAL;

ALTER TABLE invoices ALTER COLUMN document DROP NOT NULL;
ALTER TABLE invoices ADD COLUMN draft bytea;
COMMENT ON COLUMN invoices.draft IS 'the document of a draft, packed; NULL once it is issued';
ALTER TABLE invoices ALTER COLUMN draft SET STORAGE EXTERNAL;
ALTER TABLE invoices ADD CHECK (document IS NOT NULL OR draft IS NOT NULL);
ALTER TABLE invoices ADD CHECK (number IS NULL OR (document IS NOT NULL AND draft IS NULL));

-- Only issued invoices have a place in a series: drafts need no entry.
ALTER TABLE invoices DROP CONSTRAINT invoices_legal_entity_series_counter_key;
ALTER TABLE invoices DROP CONSTRAINT invoices_legal_entity_number_key;
CREATE UNIQUE INDEX invoices_by_counter ON invoices (legal_entity, series, counter) WHERE number IS NOT NULL;
CREATE UNIQUE INDEX invoices_by_number ON invoices (number, legal_entity) WHERE number IS NOT NULL;
