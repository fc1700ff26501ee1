"""The same model behind LitServe, which batches, to compare with.

python benchmarks/serving/with_litserve.py MODEL PORT WORKERS_PER_DEVICE MAX_BATCH_SIZE BATCH_TIMEOUT
"""

# No postponed annotations here: LitServe hands the one of decode_request to FastAPI as it is.
import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

import captioner
from captioner import Caption
from captioner.engines import FloatArray
from captioner.images import load_pixels


class CaptionAPI(litserve.LitAPI):
    """``POST /caption`` takes an image."""

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(api_path="/caption", **settings)
        self._name = model

    def setup(self, device: str) -> None:  # noqa: ARG002 - the library chooses it, as it does in the other servers
        """Load the model."""
        self._model = captioner.load(self._name)
        self._options = self._model.options()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> FloatArray:
        """The network's input."""
        return load_pixels(request, self._model.info.image)

    def batch(self, inputs: list[FloatArray]) -> list[FloatArray]:
        """Leave them a list, as the library takes them."""
        return inputs

    def predict(self, x: list[FloatArray]) -> list[Caption]:
        """The best caption of each."""
        return [captions[0] for captions in self._model.caption_pixels(x, self._options)]

    def unbatch(self, output: list[Caption]) -> list[Caption]:
        """They are a list already."""
        return output

    def encode_response(self, output: Caption) -> dict[str, Any]:
        """The reply's JSON."""
        return output.to_row()


if __name__ == "__main__":
    model, port, workers, batch, wait = sys.argv[1:]
    api = CaptionAPI(model, max_batch_size=int(batch), batch_timeout=float(wait))
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=int(workers))
    server.run("127.0.0.1", int(port), generate_client_file=False, log_level="warning")
