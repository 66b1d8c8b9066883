"""Attention heads: split from a projection, rotated by positions, shared between queries.

    projection (b, t, (h + 2g) · d) ──split_heads──▶ queries of h heads, keys and values of g
    keys or values of g heads ──repeat_key_value_heads──▶ of h heads

Each of g heads of keys and values serves h / g heads of queries (Ainslie et al. 2023). g = h is
multi-head attention (Vaswani et al. 2017, §3.2.2), and g = 1 multi-query attention (Shazeer 2019).

Shape suffixes: b batch, h heads of queries, g heads of keys and values, t length, d width of one
head, n heads of any kind.
"""

from torch import Tensor

from model.blocks.rotary import Rotation, rotate


def contiguous_heads(heads: Tensor) -> Tensor:
    """Make heads contiguous in memory on a CPU.

    A CPU multiplies interleaved heads at half speed. Heads are copied here, and not in each
    product, so a decoding step copies only one position, not the whole past.
    """
    return heads.contiguous() if heads.device.type == "cpu" else heads


def split_heads(
    projected: Tensor, heads: int, groups: int, head_width: int, rotation: Rotation | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Split (b, t, (h + 2g) · d) into queries (b, h, t, d), keys and values (b, g, t, d).

    Args:
        rotation: rotation of queries and keys by their positions, or None.
    """
    heads_btnd = projected.unflatten(2, (-1, head_width))
    if rotation is None and groups == heads:  # one copy instead of three
        query_bhtd, keys_bhtd, values_bhtd = contiguous_heads(
            heads_btnd.unflatten(2, (3, heads)).permute(2, 0, 3, 1, 4)
        ).unbind(0)
        return query_bhtd, keys_bhtd, values_bhtd
    turned, values_btgd = heads_btnd.split([heads + groups, groups], dim=2)
    if rotation is not None:
        turned = rotate(turned, rotation)
    query_bthd, keys_btgd = turned.split([heads, groups], dim=2)
    return (
        contiguous_heads(query_bthd.transpose(1, 2)),
        keys_btgd.transpose(1, 2),
        values_btgd.transpose(1, 2),
    )


def repeat_key_value_heads(heads_bgsd: Tensor, heads: int) -> Tensor:
    """Return keys or values (b, h, s, d), each head repeated for the query heads that share it."""
    groups = heads_bgsd.shape[1]
    if groups == heads:
        return contiguous_heads(heads_bgsd)
    return heads_bgsd.repeat_interleave(heads // groups, dim=1)
