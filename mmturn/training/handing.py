"""Pictures of what one process hands to another, whose image store has not seen them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmturn.media import ImageStore
from mmturn.types import ImageRef


def pictures_of(refs: Iterable[ImageRef], store: ImageStore) -> dict[ImageRef, bytes]:
    """The encoded images, each once. Raises LostImageError where one is gone."""
    return {ref: store.bytes(ref) for ref in dict.fromkeys(refs)}


def take_in(pictures: Mapping[ImageRef, bytes], store: ImageStore) -> None:
    """Put those into a store that it does not have."""
    for ref, data in pictures.items():
        if not store.has(ref):
            store.put_bytes(data)
