"""Candidates as networks read them: feature space, bags, relations, batches. Without torch.

An item has five numbers; names of arrays say which they hold.

- `items`, a code: its place among the log's `item_ids`.
- `space_rows`: its place among the items that training displayed, -1 for another.
- `ids`, a feature id, a row of embedding tables: its space row + `N_RESERVED`, or
  `UNKNOWN_ITEM_ID`; in a very large log, items that are displayed rarely share rows
  (`fields.share_rows`). Other fields' ids follow.
- a slot: the place of an id among the distinct ids of one batch.
- a catalogue row, of slates and pools: space rows, further items of a world, one row for all
others."""
