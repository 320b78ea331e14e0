"""Unlabelled cells: image files, and the masks beside them, for a trained network."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hep2flow.errors import DataFaults, UserError
from hep2flow.sources import i3a, icpr2012, open_source
from hep2flow.sources.file_tree import ARCHIVE_SUFFIXES, FileTree, folder_tree, open_tree
from hep2flow.sources.image_files import SUFFIXES
from hep2flow.sources.listing import Labels, Listing
from hep2flow.sources.source import Source

_MASK = re.compile(r"_mask$", re.IGNORECASE)
UNKNOWN = ""  # the pattern of an unlabelled cell


def open_images(paths: list[str], format: str = "auto", mask: str | None = None) -> Source:
    """Open every image of the paths as a source of cells without patterns.

    ``paths`` are image files, folders and archives; ``format`` is icpr2012 or i3a for a data set of that form, with its
    specimens and masks, folder for any images, whose folder is the specimen, auto to recognise it. ``mask`` is a mask for
    the only image, or a folder of masks, ``NAME.png`` or ``NAME_mask.png``; None for ``NAME_mask.png`` beside each image.

    Raises:
        UserError: A path does not exist or holds no image.
        DataFaults: Masks belong to no image.
    """
    labels, name = Labels(), paths[0] if len(paths) == 1 else f"{len(paths)} paths"
    files: dict[str, tuple[FileTree, str]] = {}  # by the paths that the user knows
    with ExitStack() as resources:
        masks = None if mask is None else _open_masks(mask, files, resources)
        for location in _open_locations(paths, format, labels, resources):
            files |= location.files(location.tree.names)
            found = _listings(location, frozenset((masks or {}).values()), labels)
            if not found and not labels.faults:
                raise UserError(f"{location.path}: holds no PNG, BMP or TIFF image; check the path")
            labels.listings += found
        if masks is not None:
            labels.listings = _assign_masks(labels.listings, masks, str(mask), labels)
        if labels.faults:
            raise DataFaults(name, labels.faults)
        labels.listings = list({listing.cell_id: listing for listing in labels.listings}.values())
        tree = FileTree(files, lambda name: files[name][0].read(files[name][1]))
        return Source(**vars(labels), name=name, format=format, tree=tree, resources=resources.pop_all())


@dataclass(frozen=True)
class _Location:
    """A tree of images for one argument, or for several images of one folder, and the path in front of its names."""

    tree: FileTree
    path: str
    form: str | None = None  # of a data set that lies there

    def user_path(self, name: str) -> str:
        return os.path.join(self.path, name)

    def files(self, names: Iterable[str]) -> dict[str, tuple[FileTree, str]]:
        return {self.user_path(name): (self.tree, name) for name in names}


def _open_locations(paths: list[str], format: str, labels: Labels, resources: ExitStack) -> Iterator[_Location]:
    images: dict[Path, set[str]] = {}
    for text in paths:
        path = Path(text).expanduser()
        if not path.exists():
            labels.fault(str(path), "no such file or folder", "check the path")
        elif not path.is_file() or path.name.lower().endswith(ARCHIVE_SUFFIXES):
            tree = open_tree(path, resources)
            form = format if format in ("icpr2012", "i3a") else None
            if format == "auto":
                form = "i3a" if i3a.find_root(tree) is not None else "icpr2012" if icpr2012.find_root(tree) else None
            yield _Location(tree, str(path), form)
        elif _is_image(path.name):
            images.setdefault(path.parent, set()).add(path.name)
        else:
            labels.fault(str(path), "is not a PNG, BMP or TIFF image", "give the original pixels as one of these")
    for folder, names in images.items():
        stems = {_stem(name) for name in names}
        masks = {name for name in os.listdir(folder) if _is_mask(name) and _stem(name) in stems}
        yield _Location(folder_tree(folder, names | masks), "" if folder == Path() else str(folder))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_mask(name: str) -> bool:
    return _is_image(name) and _MASK.search(PurePosixPath(name).stem) is not None


def _stem(name: str) -> str:
    """A file's name without its suffix, and without ``_mask``."""
    return _MASK.sub("", str(PurePosixPath(name).with_suffix("")))


def _listings(location: _Location, given: frozenset[str], labels: Labels) -> list[Listing]:
    """What is labelled by its form, or else every image that is no mask, with the mask beside it."""
    if location.form is not None:
        return _data_set_listings(location, location.form, labels)
    masks: dict[str, str] = {}
    images, others = [], []
    for name in location.tree.names:
        if location.user_path(name) in given:
            continue
        if not _is_image(name):
            others.append(name)
        elif not _is_mask(name):
            images.append(name)
        elif _stem(name) in masks:
            labels.fault(location.user_path(name), f"the same name as {masks[_stem(name)]}", "remove one of the two")
        else:
            masks[_stem(name)] = name
    if others:
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        labels.notes.append(f"{location.path}: {len(others)} files that are no PNG, BMP or TIFF were ignored: {some}")
    for stem in sorted(masks.keys() - {_stem(name) for name in images}):
        labels.fault(location.user_path(masks[stem]), "mask without an image", "add the image, or remove the mask")
    return [
        Listing(
            cell_id=location.user_path(name),
            official_split=None,
            pattern=UNKNOWN,
            intensity=None,
            specimen_id=os.path.dirname(location.user_path(name)) or ".",
            image=location.user_path(name),
            mask=location.user_path(masks[_stem(name)]) if _stem(name) in masks else None,
            where=name,
        )
        for name in images
    ]


def _data_set_listings(location: _Location, form: str, labels: Labels) -> list[Listing]:
    with open_source(location.path, form) as source:
        labels.faults += source.faults
        labels.notes += source.notes
        return [
            replace(
                listing,
                cell_id=location.user_path(listing.image),
                pattern=UNKNOWN,
                specimen_id=None if listing.specimen_id is None else location.user_path(listing.specimen_id),
                image=location.user_path(listing.image),
                mask=None if listing.mask is None else location.user_path(listing.mask),
            )
            for listing in source.listings
        ]


def _open_masks(mask: str, files: dict[str, tuple[FileTree, str]], resources: ExitStack) -> dict[str | None, str]:
    """Masks given apart from the images: the path of each by its stem, None for the only mask of a single image."""
    path = Path(mask).expanduser()
    names: dict[str | None, str]
    if path.is_file() and _is_image(path.name):
        location, names = _Location(folder_tree(path.parent, [path.name]), str(path.parent)), {None: path.name}
    else:
        location = _Location(open_tree(path, resources), str(path))
        names = {_stem(name): name for name in location.tree.names if _is_image(name)}
    files |= location.files(names.values())
    return {stem: location.user_path(name) for stem, name in names.items()}


def _assign_masks(listings: list[Listing], masks: dict[str | None, str], option: str, labels: Labels) -> list[Listing]:
    if (single := masks.get(None)) is not None:
        if len(listings) != 1:
            raise UserError(f"--mask {option}: is one mask for {len(listings)} images; name a folder of masks")
        return [replace(listings[0], mask=single)]
    assigned = []
    owners: dict[str, str] = {}
    for listing in listings:
        # The longest matching name: cells/01/007.png has the mask masks/01/007.png, else masks/007.png.
        parts = PurePosixPath(_stem(listing.image)).parts
        stems = ["/".join(parts[start:]) for start in range(len(parts))]
        name = next((masks[stem] for stem in stems if stem in masks), None)
        if name is None:
            labels.fault(listing.image, f"has no mask in {option}", f"add {stems[-1]}_mask.png there")
        elif (owner := owners.setdefault(name, listing.image)) != listing.image:
            labels.fault(listing.image, f"has the mask of {owner}", f"put the masks of each folder apart in {option}")
        else:
            assigned.append(replace(listing, mask=name))
    return assigned
