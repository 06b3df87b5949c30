"""Pictures made larger without a model: Lanczos, in a thread of the talking process."""

import asyncio
import time
from dataclasses import dataclass

from engine.errors import DrawingError
from engine.executor import Executor
from engine.images import encode_png, read_source, request_parameters
from engine.jobs import GeneratedImage, GenerationJob, GenerationRequest, GenerationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class EnlargementJob(GenerationJob):
    """A request that nothing is drawn for, see `GenerationRequest.is_drawn`; needs no device."""

    async def run(self, executor: Executor) -> GenerationResult:
        """Makes the picture; the executor goes on with what others asked for."""
        assert isinstance(self.request, GenerationRequest)  # noqa: S101 # drafts never get here
        return await asyncio.to_thread(enlarge, self.id, self.request)


def enlarge(job_id: str, request: GenerationRequest) -> GenerationResult:
    """Returns a request's source at the request's size. It blocks.

    Raises:
        DrawingError: the source is gone or can't be read.
    """
    if request.source is None:
        raise DrawingError("There is no picture to enlarge.")
    began = time.monotonic()
    picture = read_source(request.source, request.width, request.height)
    png = encode_png(picture, request_parameters(request, request.seed))
    image = GeneratedImage(png, request.seed, request.width, request.height)
    return GenerationResult(job_id, (image,), time.monotonic() - began, "cpu")
