-- A usage question costs ClickHouse about half a millisecond for each part that it looks into: over a month of 24 million rows 12 ms in 16
-- parts, 6 in one. The usual merges leave a month in such a number of parts for ever; a month to which nothing came for a while is
-- merged into one part. One late row begins it anew, so the age bounds how often: 10 s of one core for those hours, a minute for 100 million minutes.

ALTER TABLE usage_hour MODIFY SETTING min_age_to_force_merge_seconds = 3600, min_age_to_force_merge_on_partition_only = 1;
ALTER TABLE usage_minute MODIFY SETTING min_age_to_force_merge_seconds = 21600, min_age_to_force_merge_on_partition_only = 1;
