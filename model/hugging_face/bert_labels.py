"""Encoders with a head for labels to Hugging Face, as BERT with its heads of that kind.

    LabelModel ─▶ to_bert_labels ─▶ config, weights

Read in transformers 5.23.0: BertForSequenceClassification has a layer and tanh over the first
token, BertForTokenClassification has not.
"""

from collections.abc import Sequence

from model.heads.label_head import LabelModel
from model.hugging_face.bert import OF_THE_ENCODER, to_bert_encoder
from model.hugging_face.places import HuggingFaceModel, WeightLocation, taken_apart

# Whether a label is that of a text: their class.
ARCHITECTURES = {True: "BertForSequenceClassification", False: "BertForTokenClassification"}
# Ours: theirs.
HEAD = {"pooler": "bert.pooler.dense", "classifier": "classifier"}


def to_bert_labels(network: LabelModel, pad_id: int, labels: Sequence[str]) -> HuggingFaceModel:
    """Returns a network, its weights copied, in BERT's layout.

    Args:
        labels: their names, in the order in which the network has them.

    Raises:
        ModelError: BERT has no such network; the message names what it has not.
    """
    assert len(labels) == network.labels
    encoder = to_bert_encoder(network.encoder, pad_id)
    weights = {OF_THE_ENCODER + name: weight for name, weight in encoder.weights.items()}
    for name, parameter in network.named_parameters():
        module, _, kind = name.rpartition(".")
        if module in HEAD:
            weights |= taken_apart(parameter, WeightLocation([f"{HEAD[module]}.{kind}"]))
    config = {
        **encoder.config,
        "architectures": [ARCHITECTURES[network.pooler is not None]],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    return HuggingFaceModel(config, weights)
