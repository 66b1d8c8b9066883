"""Answer learners' questions about pieces, embeddings and positions."""

from collections.abc import Iterator

from foundation.wording import counted
from model.config.transformer import ModelConfig
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.parts import number
from transloom.observe.explain.question import Question, length


def of_input(explained: Explanation) -> Iterator[Question]:
    config, source = explained.config, explained.source
    width, piece = config.width, source.texts[0]
    embedding = explained.trace.encoder.embedding
    scaled, position = embedding.scaled_btm[0, 0].float(), embedding.positions_tm[0].float()
    rows = next(
        box.weights[0].shape[0]
        for box in explained.blueprint.boxes()
        if box.kind == "embedding" and box.weights
    )
    yield Question(
        "Is a piece a one-hot vector?",
        f"As a one-hot vector, “{piece}” would be {rows:,} numbers, a 1 at place {source.ids[0]} "
        "and zeros elsewhere. The product of this vector and the embedding matrix is row "
        f"{source.ids[0]} of the matrix, so the model simply selects the row. The following layers "
        f"read this row of {width} numbers, which is not one-hot.",
        "encoder.embedding",
    )
    yield Question(
        "Are these vectors those of word2vec?",
        "No. The embedding matrix is a part of this model, and is trained together with all other "
        "weights to translate. The vectors of word2vec are trained separately, to predict which "
        "words are near each other in texts.",
        "encoder.embedding",
    )
    if explained.form.turned:
        yield _how_order_is_known(explained)
        return
    yield Question(
        f"Why is the embedding multiplied by √{width}?",
        "The paper gives no reason. An effect is that the positions do not dominate the sum: the "
        f"vector of each position has the length √{width // 2} = {number((width / 2) ** 0.5)}. The "
        f"embedding of “{piece}” has the length {number(length(scaled))} after the multiplication, "
        f"and {number(length(scaled) / width**0.5)} before it.",
        "encoder.positions",
    )
    products = embedding.positions_tm.float() @ position
    last = len(source.texts) - 1
    further = f", for 0 and {last} {number(products[last].item())}" if last > 1 else ""
    near = f"For positions 0 and 1 it is {number(products[1].item())}{further}. " if last else ""
    yield Question(
        "How do the vectors of positions show nearness?",
        f"The dot product of the vectors of two positions depends only on their distance. {near}"
        f"For a position and itself it is {number(width / 2)}, which is the maximum.",
        "encoder.positions",
    )


def _how_order_is_known(explained: Explanation) -> Question:
    d = explained.form.head_width
    last = rotation_of_last_pair(explained.config)
    return Question(
        "Nothing is added to the embedding: how does the model know the order?",
        "In each self-attention, a query at position p is rotated by p times certain angles, and a "
        "key at position q by q times the same angles. Their product depends only on the "
        f"difference p − q, so a score can depend on the distance of two pieces. The {d} numbers "
        f"of a head form {counted(d // 2, 'pair')}, with angles from 1 radian per position down to "
        f"{last:.2g}. The large angles distinguish neighbours, the small ones distant pieces.",
        "encoder.1.self_attention",
    )


def rotation_of_last_pair(config: ModelConfig) -> float:
    """Return the angle in radians by which a head's last pair of numbers turns per position.

    Source: Su et al. 2021, §3.2.2.
    """
    width = config.head_width
    angle: float = config.rotary_base ** (2 / width - 1)
    return angle
