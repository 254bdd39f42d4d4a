-- Who has been told which alerts: a door that delivers them remembers here how far it came, so that nothing is missed while it or
-- its receiver is away. What lies between two rows of progress is delivered twice.
CREATE TABLE alert_readers (
  name   text   PRIMARY KEY,   -- of the door, «nats»
  serial bigint NOT NULL       -- of the last alert that was handed over
);
