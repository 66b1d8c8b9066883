"""Build all sections of a page, in the order of the forward pass."""

from transloom.observe.explain import figures
from transloom.observe.explain.decoder_sections import decoder_sections
from transloom.observe.explain.encoder_sections import encoder_sections
from transloom.observe.explain.explanation import Explanation, Pieces
from transloom.observe.explain.first_screen import translation_screen
from transloom.observe.explain.input_questions import rotation_of_last_pair
from transloom.observe.explain.overview import LAYERS_DRAWN, about_figure, how_to_read, model_table
from transloom.observe.explain.page import COMPARE, LIVE
from transloom.observe.explain.parts import (
    Beside,
    Drawing,
    Heading,
    Link,
    Part,
    Section,
    Table,
    Text,
    Tokens,
)
from transloom.observe.explain.questions import questions_section
from transloom.observe.explain.time_lapse.section import TIME_LAPSE

GROUP = "Input"


def sections_of(explained: Explanation) -> list[Section]:
    """Return the sections from the sentence to its translation."""
    return [
        _overview(explained),
        _pieces(explained),
        _embedding(explained),
        _positions(explained),
        *encoder_sections(explained),
        *decoder_sections(explained),
    ]


def page_of(explained: Explanation) -> list[Section]:
    """Return all sections of a page: those of the forward pass, then the questions."""
    return [*sections_of(explained), questions_section(explained)]


def what_is_left_out(explained: Explanation) -> list[str]:
    """Describe content that the page leaves out because the model or the sentence is large."""
    config = explained.config
    longest = max(len(explained.source.ids), len(explained.chosen.ids))
    found = [
        figures.left_out(config.encoder_layers, figures.MAX_LAYERS, "encoder layers"),
        figures.left_out(config.decoder_layers, figures.MAX_LAYERS, "decoder layers"),
        figures.left_out(config.heads, figures.MAX_HEADS, "heads"),
        figures.left_out(config.width, figures.MAX_NUMBERS, "numbers of a vector"),
        figures.left_out(config.feed_forward_width, figures.MAX_NUMBERS, "inner numbers"),
        figures.left_out(len(explained.source.ids), figures.MAX_PIECES, "source pieces"),
        figures.left_out(longest, figures.MAX_ATTENDED, "pieces of a map of weights"),
        figures.left_out(len(explained.chosen.ids), figures.MAX_PIECES, "decoding steps"),
    ]
    return [cut for cut in found if cut]


def _overview(explained: Explanation) -> Section:
    config = explained.config
    same = explained.beam_translation == explained.translation
    found = "finds the same translation" if same else f"finds “{explained.beam_translation}”"
    layers = max(config.encoder_layers, config.decoder_layers)
    parts: list[Part] = [
        *about_figure(explained.blueprint, "sentence"),
        Link("Type your own sentence", LIVE),
        Link("Compare two models side by side", COMPARE),
        Link("See how translations changed during training", TIME_LAPSE),
        Drawing(explained.blueprint, each_layer=layers <= LAYERS_DRAWN),
        Heading("The sentence"),
        Tokens("Source", explained.source.texts),
        Tokens("Translation", explained.chosen.texts),
        Text(
            "This page follows greedy search: every step takes the most probable piece. "
            f"The command transloom translate uses beam search, which keeps the best "
            f"{explained.beam_size} translations at each step, and {found}."
        ),
        Text(
            "Each predicted piece becomes the next input of the decoder, until the decoder "
            f"predicts {explained.chosen.texts[-1]}."
        ),
        Heading("The model"),
        model_table(
            f"{config.encoder_layers} encoder, {config.decoder_layers} decoder",
            explained.form,
            explained.blueprint,
            len(explained.vocabulary),
            explained.checkpoint,
        ),
        *how_to_read(what_is_left_out(explained)),
    ]
    return Section(
        group="The model",
        name="Overview",
        title="From sentence to translation",
        lead=(
            "An encoder reads the sentence and turns each piece into a row of numbers. A decoder "
            "then writes the translation piece by piece. It looks at the encoder's rows, and at "
            "the pieces that it has written so far."
        ),
        parts=parts,
        first_screen=translation_screen(explained),
    )


def ids_table(pieces: Pieces) -> Table:
    """Return a table with the position and the id of each piece."""
    rows = enumerate(zip(pieces.texts, pieces.ids, strict=True))
    return Table(
        ["position", "piece", "id"],
        [(str(position), piece, str(number)) for position, (piece, number) in rows],
    )


def _pieces(explained: Explanation) -> Section:
    source = explained.source
    return Section(
        group=GROUP,
        name="Pieces and ids",
        title="Pieces and their ids",
        lead=(
            "The model knows no letters, only a list of pieces: words, or parts of rarer words. "
            "SentencePiece splits the sentence into pieces. Each piece has a number, its id."
        ),
        parts=[
            Tokens("Pieces", source.texts),
            ids_table(source),
            Text(
                "▁ represents the space before a word. The last piece, which marks the end of the "
                "sentence, is always added."
            ),
        ],
        shows={"": ["encoder.ids"]},
    )


def _embedding(explained: Explanation) -> Section:
    config = explained.config
    shared = {
        "all": "Source, target and output layer use the same matrix.",
        "decoder": "The target has another matrix, which the output layer also uses.",
        "none": "Source, target and output layer have three separate matrices.",
    }
    pieces = explained.source.texts
    return Section(
        group=GROUP,
        name="Embedding",
        title="Each id picks a row of numbers",
        lead=(
            f"A learned matrix has a row of {config.width} numbers for each piece. The rows of our "
            f"{len(pieces)} pieces are selected, and multiplied by √{config.width} = "
            f"{config.width**0.5:.2f}, the root of the model's width."
        ),
        parts=[
            figures.vectors(
                f"embedding × √{config.width}",
                explained.trace.encoder.embedding.scaled_btm[0],
                pieces,
            ),
            Text(shared[config.share_embeddings]),
        ],
        shows={"": ["encoder.embedding"]},
    )


def _positions(explained: Explanation) -> Section:
    return _rotary_positions(explained) if explained.form.turned else _added_positions(explained)


def _rotary_positions(explained: Explanation) -> Section:
    return Section(
        group=GROUP,
        name="Positions",
        title="Where each piece stands",
        lead=(
            "Attention alone does not see the order of the pieces. In this model, no positions are "
            "added to the embedding. Instead, the self-attention of every layer rotates queries "
            "and keys by angles that grow with the position, so that their product depends on the "
            "distance of two pieces."
        ),
        parts=[
            figures.vectors(
                "input of the first layer",
                explained.trace.encoder.embedding.sum_btm[0],
                explained.source.texts,
            ),
            Text(
                "The numbers of a head are rotated in pairs, and each pair has a different angle "
                "(rotary positions): 1 radian per position for the first pair, and "
                f"{rotation_of_last_pair(explained.config):.2g} for the last one."
            ),
        ],
    )


def _added_positions(explained: Explanation) -> Section:
    embedding = explained.trace.encoder.embedding
    pieces = explained.source.texts
    places = [f"position {position}" for position in range(len(pieces))]
    return Section(
        group=GROUP,
        name="Positions",
        title="Where each piece stands",
        lead=(
            "Attention alone does not see the order of the pieces. Therefore a pattern of sines "
            "and cosines is added that depends on the position: fast waves on the left, slow waves "
            "on the right."
        ),
        parts=[
            Beside(
                [
                    figures.vectors("embedding", embedding.scaled_btm[0], pieces),
                    figures.vectors("+ positions", embedding.positions_tm, places),
                    figures.vectors("= input of the first layer", embedding.sum_btm[0], pieces),
                ]
            ),
        ],
        shows={"": ["encoder.positions"]},
    )
