"""Candidates as networks read them: feature space, bags, relations, batches. Without torch.

An item has five numbers; names of arrays say which they hold.

- `items`, an item's code: its place among the log's `item_ids`.
- `space_rows`: its place among the items that training displayed, -1 for another. Relations and the
  baselines' tables are by space row.
- `ids`, a feature id: its space row + `N_RESERVED`, or `UNKNOWN_ITEM_ID`. Other fields' ids follow;
  an embedding table has one row per id.
- a slot: the place of an id among the distinct ids of one batch.
- a catalogue row: its place among a world's items: space rows, further items, then one row
  for every unknown item. Slates and pools hold catalogue rows."""
