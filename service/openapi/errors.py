"""What each error code means and what to do about it, and which ones come together."""

from __future__ import annotations

from service.errors import STATUS

MEANINGS = {
    "bad_option": "An option is unknown, of the wrong type, out of its range, or without effect beside the others.",
    "bad_request": "The request has not the shape that this path takes; the sentence tells what is missing.",
    "empty_body": "There is no body; send an image.",
    "bad_json": "The body starts like JSON but is not.",
    "bad_multipart": "The body starts like a form but is not a complete one.",
    "bad_base64": "The text is neither base64 nor a data: URL with base64 in it.",
    "url_refused": "Images at a URL are not fetched; send the image itself.",
    "unauthorized": "This service wants an API key, and the request has none or a wrong one.",
    "model_not_found": "No model of this name is served; GET /v1/models lists them.",
    "not_found": "There is nothing at this path.",
    "method_not_allowed": "The path takes another method; the header Allow names it.",
    "request_timeout": "The request came too slowly; send it again.",
    "head_too_large": "The head of the request has too many or too long lines.",
    "body_too_large": "The body, or one text in it, is over the limit.",
    "image_too_large": "The picture has too many pixels; make it smaller.",
    "too_many_images": "There are more images than one request may have; send several requests.",
    "not_an_image": "The bytes are of no image format that is taken here; the sentence names those.",
    "image_broken": "The image is of a known format but damaged or cut off.",
    "busy": "Too much is waiting already; try again after the seconds in Retry-After.",
    "rate_limited": "This address sent too many requests; try again after the seconds in Retry-After.",
    "client_gone": "The client did not wait for the reply, so that only the log and the metrics have this.",
    "internal_error": "The service failed; its log tells more under the request id.",
    "speech_failed": "The synthesiser failed on a request that was in order.",
    "missing_dependency": "This service was installed without the part that this needs; the sentence names it.",
    "starting": "The model is still loading; try again after the seconds in Retry-After.",
    "draining": "The service is about to stop and takes no new work; send the request to another one.",
    "model_unavailable": "The model could not be loaded; the log of the service tells why.",
    "deadline": "The caption was not ready in time; try again when there is less to do.",
}

OF_HTTP = {"not_found": 404, "method_not_allowed": 405, "request_timeout": 408, "head_too_large": 431}
JSON_BODY = ("bad_request", "empty_body", "bad_json", "body_too_large")
BODY = (*JSON_BODY, "bad_multipart")
IMAGE = ("bad_base64", "url_refused", "image_too_large", "too_many_images", "not_an_image", "image_broken")
LOADING = ("starting", "model_unavailable")
UNREADY = (*LOADING, "draining")
WORK = (*IMAGE, *LOADING, "model_not_found", "bad_option", "busy", "deadline")
CAPTIONING = (*BODY, *WORK)
SPEAKING = ("bad_option", "busy", "speech_failed", "missing_dependency")


def status(code: str) -> int:
    """The HTTP status that goes with an error code."""
    return {**OF_HTTP, **STATUS}.get(code, 500)
