-- A series is its pattern with the date filled in, whatever the width of its counter: FA-2026-{N}. With the width in the key, a
-- wider counter would have begun at 1 again, and would have given the numbers of the narrower one a second time. Forward only.
-- Issued invoices keep the series that was written on them.
ALTER TABLE number_series DISABLE TRIGGER number_series_stay;
CREATE TEMPORARY TABLE merged_series AS
  SELECT legal_entity, regexp_replace(series, '\{N+\}', '{N}') AS series, max(last) AS last, max(last_date) AS last_date
  FROM number_series GROUP BY 1, 2;
DELETE FROM number_series;
INSERT INTO number_series (legal_entity, series, last, last_date) SELECT legal_entity, series, last, last_date FROM merged_series;
DROP TABLE merged_series;
ALTER TABLE number_series ENABLE TRIGGER number_series_stay;
