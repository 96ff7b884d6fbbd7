"""What the lens said of one generation: arrays, and ways to look at them and keep them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sextant.errors import SextantError, invalid
from sextant.heatmap import Heatmap
from sextant.logitlenskit import save_v2
from sextant.readings import ReadingArrays, Tracked
from sextant.transcript import Transcript

if TYPE_CHECKING:
    import pandas

    from sextant.client import Client
    from sextant.vectors import Vector


class LensResult:
    """`out.lens`. Position p answers: what would the model say comes after token p.

    Arrays are dense over [site, layer, position]; `sites` and `layers` name the axes. Rows that were not
    asked for or are missing are NaN and -1, and counted in `out.stats.missing_reading_count`.
    """

    def __init__(self, transcript: Transcript, client: Client) -> None:
        self._transcript = transcript
        self._client = client
        self._arrays: ReadingArrays = transcript.readings

    @property
    def sites(self) -> list[str]:
        """Names along the site axis."""
        return self._arrays.sites

    @property
    def layers(self) -> list[int]:
        """Numbers along the layer axis, ascending."""
        return self._arrays.layers

    @property
    def top_ids(self) -> np.ndarray:
        """int32 [site, layer, position, k], best first."""
        return self._arrays.top_ids

    @property
    def top_logprobs(self) -> np.ndarray:
        """float32 [site, layer, position, k]: true log-probabilities over the full vocabulary."""
        return self._arrays.top_logprobs

    @property
    def entropy(self) -> np.ndarray:
        """float32 [site, layer, position], nats."""
        return self._arrays.entropy

    @property
    def kl_final(self) -> np.ndarray:
        """float32 [site, layer, position]: KL(final layer || this row), nats."""
        return self._arrays.kl_final

    @property
    def target_ids(self) -> np.ndarray:
        """int32 [position] of the tokens that came next, or [position, target] of Lens(targets=[...])."""
        return self._target_axis(self._arrays.target_ids)

    @property
    def target_logprob(self) -> np.ndarray:
        """float32 [site, layer, position], or [site, layer, position, target] of Lens(targets=[...])."""
        return self._target_axis(self._arrays.target_logprob)

    @property
    def target_rank(self) -> np.ndarray:
        """int32, shaped like target_logprob; 1 is the best."""
        return self._target_axis(self._arrays.target_rank)

    @property
    def prediction_depth(self) -> np.ndarray:
        """int32 [site, position]: the layer from which the top-1 stays the final layer's; -1 if none."""
        return self._arrays.prediction_depth

    @property
    def tracked(self) -> dict[int, Tracked]:
        """By position: the union of all layers' candidates, at every layer; needs Lens(tracked=True)."""
        if not self._lens_option("tracked"):
            raise SextantError(
                "FAILED_PRECONDITION", "TRACKED_NOT_REQUESTED", "use lens=sextant.Lens(tracked=True)"
            )
        return self._arrays.tracked

    def texts(self) -> np.ndarray:
        """object [site, layer, position, k]: the texts of top_ids, "" where a row is missing."""
        known = self._client.vocabulary.texts(self.top_ids)
        flat = [known[int(i)] for i in self.top_ids.ravel()]
        return np.array(flat, dtype=object).reshape(self.top_ids.shape)

    def heatmap(
        self,
        path: str | Path | None = None,
        *,
        site: str | None = None,
        title: str = "",
        partial: str = "",
    ) -> Heatmap:
        """Layers by positions, as a page or a picture.

        path: where to write it; `.html` is self-contained and interactive, `.png` (and .svg, .pdf) need the
        extra `sextant[plot]`; None only returns it, for a notebook to show. site: which one comes first.
        partial: why these are not all readings that were asked for; the picture says so.
        """
        picture = Heatmap(
            self._transcript,
            self._arrays,
            self._client.vocabulary,
            self._client.model_name,
            self._site_index(site),
            title,
            self._stored,
            partial,
        )
        if path is not None:
            picture.save(path)
        return picture

    def save(self, path: str | Path, *, site: str | None = None, partial: str = "") -> Path:
        """Writes logitlenskit v2 JSON of one site (the first by default), for viewers that read it.

        Without Lens(tracked=True), probabilities of layers where a candidate is not in the top k are null.
        partial: why these are not all readings that were asked for; stands in `meta`.
        """
        return save_v2(
            Path(path),
            self._transcript,
            self._arrays,
            self._client.vocabulary,
            self._client.model_name,
            self._site_index(site),
            partial,
        )

    def to_pandas(self) -> pandas.DataFrame:
        """One line per (site, layer, position) that is there; needs `sextant[plot]`."""
        try:
            import pandas
        except ImportError as error:
            raise SextantError(
                "FAILED_PRECONDITION", "PANDAS_MISSING", "to_pandas needs pandas: pip install 'sextant[plot]'"
            ) from error
        a = self._arrays
        s, layer, p = np.nonzero(~np.isnan(a.entropy))
        columns: dict[str, Any] = {
            "site": np.array(a.sites, object)[s],
            "layer": np.array(a.layers, np.int32)[layer],
            "position": p.astype(np.int32),
            "top_text": self.texts()[s, layer, p, 0],
            "top_id": a.top_ids[s, layer, p, 0],
            "top_logprob": a.top_logprobs[s, layer, p, 0],
            "entropy": a.entropy[s, layer, p],
            "kl_final": a.kl_final[s, layer, p],
            "prediction_depth": a.prediction_depth[s, p],
        }
        for t in range(a.target_ids.shape[1]):
            suffix = "" if a.target_ids.shape[1] == 1 else f"_{t}"
            columns[f"target_id{suffix}"] = a.target_ids[p, t]
            columns[f"target_logprob{suffix}"] = a.target_logprob[s, layer, p, t]
            columns[f"target_rank{suffix}"] = a.target_rank[s, layer, p, t]
        return pandas.DataFrame(columns)

    def _repr_html_(self) -> str:
        return self.heatmap()._repr_html_()

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._arrays.entropy.shape))
        return f"<LensResult sites={self.sites} [site, layer, position]={shape} k={self.top_ids.shape[-1]}>"

    def _target_axis(self, array: np.ndarray) -> np.ndarray:
        if self._lens_option("targets") != "next":
            return array
        if array.shape[-1] == 0:
            raise SextantError("DATA_LOSS", "TARGETS_MISSING", "the server sent no targets with the readings")
        return array[..., 0]

    def _lens_option(self, name: str) -> Any:
        return getattr(self._transcript.options.lens, name, {"targets": "next", "tracked": False}[name])

    def _stored(self, reference: str) -> Vector | None:
        """What the server knows of a vector by name; None when it does not know it any more."""
        try:
            return self._client.vectors.info(reference)
        except SextantError:
            return None

    def _site_index(self, site: str | None) -> int:
        if site is not None and site not in self.sites:
            raise invalid("UNKNOWN_SITE", f"no readings of {site!r}; there are {', '.join(self.sites)}")
        return self.sites.index(site) if site else 0
