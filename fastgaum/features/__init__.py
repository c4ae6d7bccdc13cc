"""Candidates as networks read them: feature space, bags, relations, batches. Without torch.

An item has five numbers, one for each question. Names of arrays say which they hold.

- `items`, an item's code: its place among the log's `item_ids`. Another log has other codes.
- `space_rows`: its place among the items that training displayed, the vocabulary of a
  `FeatureSpace`; -1 for an item that training did not display. `CodedLog.space_rows` leads from
  codes to rows. Relations and the baselines' tables are by space row.
- `ids`, a feature id: its space row + `N_RESERVED`, or `UNKNOWN_ITEM_ID`. The other fields' ids
  follow in the same numbering, and an embedding table has one row per id.
- a slot: the place of an id among the distinct ids of one batch, where the engine gathers the
  table's rows before it computes.
- a catalogue row: its place among a world's items. The first are the space rows, then further items
  that training never displayed, then one row for every unknown item. Slates and pools hold
  catalogue rows.

A user, a session and an event have one number: their place in the log."""
