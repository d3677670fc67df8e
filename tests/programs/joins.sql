-- Tables in memory, an index, joins and groups; :n stands for the rows.
PRAGMA cache_size = -4000000;
PRAGMA temp_store = memory;
CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, name TEXT, weight REAL);
CREATE TABLE sale(id INTEGER PRIMARY KEY, item INTEGER, amount INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :n)
INSERT INTO item SELECT i, i * 7919 % 1009, 'item-' || (i * 104729 % 1000003), i % 97 / 7.0 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2 * :n)
INSERT INTO sale SELECT i, 1 + i * 31337 % :n, i * i % 1000, hex(i * 2654435761) || '-note' FROM n;
CREATE INDEX sale_item ON sale(item);
CREATE INDEX item_name ON item(name);
SELECT count(*), sum(amount), max(note) FROM sale;
SELECT grp, count(*), sum(amount), round(sum(weight), 3), min(note)
  FROM item JOIN sale ON sale.item = item.id GROUP BY grp ORDER BY 3 DESC, 1 LIMIT 20;
SELECT a.name, b.name, a.grp FROM item a JOIN item b ON b.name = a.name AND b.id > a.id
  ORDER BY 1, 2, 3 LIMIT 20;
UPDATE sale SET note = note || '!' WHERE amount % 3 = 0;
DELETE FROM sale WHERE amount % 7 = 0;
SELECT count(*), sum(length(note)), sum(amount) FROM sale;
SELECT name, amount FROM item JOIN sale ON sale.item = item.id ORDER BY note DESC LIMIT 20;
