"""Which preset a model folder is of, and which of its files is the student. A wrong roll-out is never guessed.

It is told by ``hiar.json`` or by the caller; if neither does, by a file that has the exact name or place it was
published at. Knows names of files alone: what is in them, the loader checks.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from engine.config import Lora, RolloutConfig
from engine.errors import StartError
from engine.json_sections import converted, read_json
from engine.law.presets import PRESETS, Layout, Preset, names_of_presets
from engine.student_keys import student_keys

PRESET_NAME = "hiar.json"
"""A file that says which preset a folder is of, ``{"preset": NAME, "rollout": {KEY: VALUE}}``; ``rollout`` holds what
differs from it and may be left out."""

_TRAINER_SUFFIXES = {".pt", ".pth"}
_KINDS = ("*.pt", "*.safetensors.index.json", "*.safetensors")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_NO_STUDENT = re.compile(r"lora|vae|taew|umt5|(^|[_.-])t5([_.-]|$)|clip|text_?encoder", re.IGNORECASE)
"""Names of what lies beside a student: it is never taken for one."""
_PLAIN_BASE = re.compile(r"^diffusion_pytorch_model[.-]")
"""What the Wan release calls its own transformer, which sees a whole video at once."""
_VAGUE = {"model.pt"}
"""Every trainer calls its file so; only its place tells more."""
_EMA = "generator_ema"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A preset, and its roll-out as the folder has it."""

    preset: Preset
    rollout: RolloutConfig


@dataclass(frozen=True, kw_only=True)
class Student:
    """What the transformer's weights are read from."""

    choice: Choice
    file: Path
    key: str | None
    loras: tuple[Lora, ...]


def find_student(folder: Path, layout: Layout, asked: str | None) -> Student:
    """The student of a folder in that layout, by the preset that is asked for, or that the folder tells.

    Raises:
        StartError: there is no such preset, nothing tells one, several are told, or a file is missing.
    """
    choice = _told(folder, asked)
    if layout is Layout.DIFFUSERS:
        if choice is None:
            raise StartError(_untold_diffusers(folder))
        file, key = folder / "transformer", None
    else:
        choice = choice or _by_name(folder)
        file, key = _file_of(folder, choice.preset)
    return Student(choice=choice, file=file, key=key, loras=_loras_of(folder, choice.preset))


def preset_named(name: str) -> Preset:
    """Raises ``StartError`` where there is none."""
    if name not in PRESETS:
        raise StartError(f"there is no preset {name!r}; there are {names_of_presets()}")
    return PRESETS[name]


def _told(folder: Path, asked: str | None) -> Choice | None:
    """By the caller or by the folder; another preset than the folder's takes nothing over from its file."""
    source = folder / PRESET_NAME
    told = _read_choice(source) if source.is_file() else None
    if asked is None or (told is not None and told.preset.name == asked):
        return told
    preset = preset_named(asked)
    return Choice(preset=preset, rollout=preset.rollout)


def _read_choice(source: Path) -> Choice:
    content = read_json(source)
    name, values = content.pop("preset", None), content.pop("rollout", {})
    if content:
        raise StartError(f"{source} has unknown keys {', '.join(sorted(content))}; it has preset and rollout")
    if not isinstance(name, str) or name not in PRESETS:
        raise StartError(f"{source}: preset is {name!r}; expected one of {names_of_presets()}")
    if not isinstance(values, dict):
        raise StartError(f"{source}: rollout is no object")
    preset = PRESETS[name]
    changes = converted(RolloutConfig, values, source, "rollout")
    try:
        return Choice(preset=preset, rollout=replace(preset.rollout, **changes))
    except ValueError as error:
        why = str(error).removeprefix("self.")
        raise StartError(f"{source}: rollout does not go with preset {name}: {why}") from error


def _by_name(folder: Path) -> Choice:
    """By a student that lies there under its published name. Raises ``StartError`` unless it is exactly one."""
    known = [(preset, file) for preset in _tellable() if (file := _place(folder, preset.file, asked=False))]
    if len(known) == 1:
        ((preset, _),) = known
        return Choice(preset=preset, rollout=preset.rollout)
    if known:
        told = ", ".join(f"{preset.name} ({file.relative_to(folder)})" for preset, file in known)
        raise StartError(f"{folder} holds students of several presets: {told}; name one of these by --preset")
    raise StartError(_untold_original(folder))


def _tellable() -> list[Preset]:
    return [one for one in PRESETS.values() if one.layout is Layout.ORIGINAL and not one.must_be_named]


def _place(folder: Path, published: str, *, asked: bool) -> Path | None:
    """Where a published file lies: at its own place below the folder, or beside the sizes.

    There it must have been asked for, or its name or the folder's must tell what it is.
    """
    file, beside = folder / published, folder / PurePosixPath(published).name
    if file.is_file():
        return file
    is_told = asked or _known_as(beside.name) is not None or beside.absolute().match(published)
    return beside if is_told and beside.is_file() else None


def _published_as(name: str) -> list[Preset]:
    return [preset for preset in _tellable() if PurePosixPath(preset.file).name == name]


def _known_as(name: str) -> Preset | None:
    """The preset that a file's name alone tells."""
    presets = _published_as(name)
    return presets[0] if len(presets) == 1 and name not in _VAGUE else None


def _file_of(folder: Path, preset: Preset) -> tuple[Path, str | None]:
    """The preset's student and its key: the published file, or the only other one that may be a student.

    That may be from before its trainer averaged, so an average is not asked for.
    """
    published = None if preset.layout is Layout.DIFFUSERS else _place(folder, preset.file, asked=True)
    if published is not None:
        return published, preset.transformer_key
    file = _only_candidate(folder, preset)
    return file, _key_in(file, preset)


def _key_in(file: Path, preset: Preset) -> str | None:
    """The key to take of a student that is not the published file."""
    return None if preset.transformer_key == _EMA or file.suffix not in _TRAINER_SUFFIXES else preset.transformer_key


def _only_candidate(folder: Path, preset: Preset) -> Path:
    files = _candidates(folder)
    others = {file: _published_as(file.name) for file in files if file.name not in _VAGUE}
    free = [file for file in files if not others.get(file)]
    if len(free) == 1:
        return free[0]
    needed = f"needed {preset.file} there, or one other .pt or .safetensors beside config.json"
    if free:
        raise StartError(f"{folder} holds {_names(free)}, of which any may be preset {preset.name}'s; {needed}")
    if files:
        told = ", ".join(f"{file.name} is of {' or '.join(other.name for other in others[file])}" for file in files)
        raise StartError(f"{folder} holds no student of preset {preset.name}, {told}; {needed}")
    if any(_PLAIN_BASE.match(file.name) for file in _weights(folder)):
        raise StartError(_plain_base(folder))
    raise StartError(f"{folder} holds no student of preset {preset.name}{_found(folder)}; {needed}")


def _candidates(folder: Path) -> list[Path]:
    """Weight files beside the sizes that may be a student."""
    return [
        file
        for file in _weights(folder)
        if not (_NO_STUDENT.search(file.name) or _PLAIN_BASE.match(file.name) or _SHARD.search(file.name))
    ]


def _weights(folder: Path) -> list[Path]:
    return [file for kind in _KINDS for file in sorted(folder.glob(kind)) if file.is_file()]


def _loras_of(folder: Path, preset: Preset) -> tuple[Lora, ...]:
    places = {lora: _place(folder, lora.file, asked=True) for lora in preset.loras}
    missing = [lora.file for lora, file in places.items() if file is None]
    if missing:
        fetch = f"hiar-download {preset.name} --to {folder} fetches it"
        raise StartError(f"{folder} lacks {', '.join(missing)} of preset {preset.name}; {fetch}")
    return tuple(Lora(file=file, key=lora.key) for lora, file in places.items() if file is not None)


def _untold_original(folder: Path) -> str:
    candidates, weights = _candidates(folder), _weights(folder)
    fits = list(dict.fromkeys(preset.name for file in weights for preset in _published_as(file.name)))
    if candidates:
        hint = f"; by its name it may be {' or '.join(fits)}" if fits else ""
        by_keys = ", ".join(preset.name for preset in _fitting(folder, candidates)) or "none, by the keys in it"
        return (
            f"nothing tells the roll-out of {_names(candidates)} in {folder}{hint}; name the preset that it was "
            f"trained as by --preset, or in {PRESET_NAME}: those that fit are {by_keys}{_found(folder)}"
        )
    if any(_PLAIN_BASE.match(file.name) for file in weights):
        return _plain_base(folder)
    needed = "needed hiar.pt or the file of another preset"
    return f"{folder} holds no transformer: {needed}{_found(folder)}; {_fetch_some(folder)}"


def _fitting(folder: Path, candidates: list[Path]) -> list[Preset]:
    """Presets that one of these files could be served as in this layout, by its keys and by what lies beside it."""
    keys = {file: student_keys(file) if file.suffix in _TRAINER_SUFFIXES else None for file in candidates}
    return [
        preset
        for preset in PRESETS.values()
        if preset.layout is Layout.ORIGINAL
        and all(_place(folder, lora.file, asked=True) for lora in preset.loras)
        and any(held is None or _key_in(file, preset) in {None, *held} for file, held in keys.items())
    ]


def _plain_base(folder: Path) -> str:
    names = _names(file for file in _weights(folder) if _PLAIN_BASE.match(file.name))
    return (
        f"{names} in {folder} is the plain bidirectional Wan2.1 base, which cannot make a video block by block"
        f"{_found(folder)}; {_fetch_some(folder)}; a student that was saved under this "
        "name needs another one and --preset"
    )


def _untold_diffusers(folder: Path) -> str:
    return (
        f"nothing tells the roll-out of {folder / 'transformer'}: if it is the plain bidirectional Wan2.1 base, it "
        "cannot make a video block by block; if it is a causal student, name its preset by --preset, or in "
        f"{PRESET_NAME}: one of {names_of_presets()}"
    )


def _fetch_some(folder: Path) -> str:
    return f"hiar-download NAME --to {folder} fetches one of {names_of_presets()}"


def _found(folder: Path) -> str:
    """What else is there, so that nobody has to look."""
    weights = _weights(folder)
    return f" (found {_names(weights)})" if weights else ""


def _names(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
