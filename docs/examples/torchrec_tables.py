"""A user model whose item tables are TorchRec's: `python torchrec_tables.py LOG`."""

import sys

from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

import fastgaum as fg


class Collection(nn.Module):
    """One table of the model as an EmbeddingBagCollection of one table; what shards those, shards
    this."""

    def __init__(self, name, n_rows, width, std):
        super().__init__()
        rows = EmbeddingBagConfig(
            name="rows",
            num_embeddings=n_rows,
            embedding_dim=width,
            feature_names=["ids"],
            init_fn=lambda weight: nn.init.normal_(weight, 0, std),
        )
        self.bags = EmbeddingBagCollection(tables=[rows])

    def forward(self, ids, offsets):
        """Sum of each bag's rows, (n_bags, width)."""
        lengths = offsets.diff()
        return self.bags(
            KeyedJaggedTensor.from_lengths_sync(["ids"], ids.long(), lengths.long())
        ).values()

    def weight(self):
        """All rows, (n_rows, width)."""
        return self.bags.embedding_bags["rows"].weight


def main(log, **settings):
    """Train on a log; return the model and its table of epochs."""
    model = fg.UserModel.from_preset(
        "paper-lstm", players="adversarial", tables=Collection, device="cpu", **settings
    )
    return model, model.fit(fg.load(log) if isinstance(log, str) else log)


if __name__ == "__main__":
    model, table = main(sys.argv[1])
    print(table)
    model.save("user.safetensors")  # an ordinary model
