-- An import goes on behind the line that its last batch ended on, and its counts say the rest.
ALTER TABLE usage_imports RENAME COLUMN rows_read TO line_reached;
COMMENT ON COLUMN usage_import_rejects.row IS 'line of the file that the row ends on, from 1, as an editor counts';
