-- What merging costs, CPU ns a row and pass of usage_events: with the skip index over (stream, epoch) 600, over epoch alone 400, without one
-- 370. Epochs of other streams with the same number are left out after it.

ALTER TABLE usage_events DROP INDEX IF EXISTS by_epoch;
ALTER TABLE usage_events ADD INDEX IF NOT EXISTS by_epoch_number epoch TYPE minmax GRANULARITY 1;
ALTER TABLE usage_events MATERIALIZE INDEX IF EXISTS by_epoch_number;
ALTER TABLE usage_minute DROP INDEX IF EXISTS by_epoch;
ALTER TABLE usage_minute ADD INDEX IF NOT EXISTS by_epoch_number epoch TYPE minmax GRANULARITY 1;
ALTER TABLE usage_minute MATERIALIZE INDEX IF EXISTS by_epoch_number;
