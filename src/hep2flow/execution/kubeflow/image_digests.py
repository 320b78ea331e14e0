"""The digest behind an image's tag, as its registry gives it: a run is of one image, whatever the tag names later."""

import re

import oras.container
import oras.provider
from requests import RequestException, Response

from hep2flow.errors import UserError

# Accept header for images of several platforms, and of one.
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
LOOPBACK_REGISTRY = re.compile(r"^(localhost|127\.0\.0\.1)(:\d+)?/")


def pin_image(image: str) -> str:
    """``NAME@sha256:…`` of an image, with the credentials of ``docker login``; an image with a digest is returned as it is.

    Raises:
        UserError: The registry does not answer, or has no such image.
    """
    if "@" in image:
        return image
    try:
        container = oras.container.Container(image)
        registry = oras.provider.Registry(insecure=bool(LOOPBACK_REGISTRY.match(image)))
        registry.auth.load_configs(container)
        # Not the decorated method: oras retries for minutes, and a person waits here.
        response: Response = type(registry).do_request.__wrapped__(
            registry, f"{registry.prefix}://{container.manifest_url()}", "HEAD", headers={"Accept": MANIFESTS}
        )
    except (RequestException, ValueError, oras.auth.AuthenticationException) as error:
        raise _not_pinned(image, type(error).__name__) from error
    digest = response.headers.get("Docker-Content-Digest", "")
    if not response.ok or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _not_pinned(image, f"{response.status_code} {response.reason}")
    return f"{image.removesuffix(f':{container.tag}')}@{digest}"


def _not_pinned(image: str, why: str) -> UserError:
    fix = "push it, log in with docker login, give it with its digest (NAME@sha256:…)"
    last = "or add --keep-tags for images that the nodes have already"
    return UserError(f"image {image}: its registry gives no digest ({why}); {fix}, {last}")
