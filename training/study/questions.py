"""What a study asks, of folders of pictures: pages for people, and a key that says what each picture is.

CFLD 4.4 (after PIDM): R2G and G2R of 30 real and 30 generated pictures, where a person sees those of one method only and the
pairs are the same for all methods; Jab, the best match to the ground truth among all methods. QEN 4.4: Jab, 25 questions.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from pgpis_models.files.pictures import open_rgb
from training.evaluation.pairing import by_stem

REAL = "real"   # the method of real pictures in the key
PAGE = Path(__file__).with_name("page.html")
KEY = "key.json"


@dataclass(frozen=True)
class Question:
    """name: of the question in answers. pictures: files in `pictures/` to judge or to choose from. truth: file shown beside
    them, or nothing."""
    name: str
    pictures: tuple[str, ...]
    truth: str = ""


@dataclass(frozen=True)
class Page:
    """kind: `judge` (real or generated?) or `choose` (which is the best match?). name: of its file, without ending."""
    name: str
    kind: str
    questions: tuple[Question, ...]


def common(real: Path, methods: dict[str, Path]) -> list[str]:
    """Names that the real folder and every method's have, sorted. Raises ValueError when there is none."""
    shared = set(by_stem(real)).intersection(*(by_stem(folder) for folder in methods.values()))
    if not shared:
        raise ValueError(f"no picture has the same name in {real} and in each of "
                         f"{', '.join(str(folder) for folder in methods.values())}; expected targets and generated pictures "
                         "of one test split, as training/generate_split.py names them")
    return sorted(shared)


class Study:
    """Pages of a study and its key, of pictures of the same names.

    real: folder of ground truths. methods: name -> folder, one at least (two for `choose`). choices: questions of Jab.
    judged: real and as many generated pictures of R2G and G2R; their names differ, so that no page shows a target beside its
    copy. size: (height, width) of all pictures, or None for that of the first generated one. 0 choices or judged leave that
    part out. Raises ValueError when there are too few pictures.
    """

    def __init__(self, real: Path, methods: dict[str, Path], choices: int = 25, judged: int = 30, seed: int = 0,
                 size: tuple[int, int] | None = None) -> None:
        if REAL in methods or (choices and len(methods) < 2) or not methods:
            raise ValueError(f"methods are {sorted(methods)}; expected two or more to choose from (one without --choices), "
                             f"none called {REAL!r}")
        names = common(real, methods)
        if max(choices, 2 * judged) > len(names) or min(choices, judged) < 0 or not choices + judged:
            raise ValueError(f"{len(names)} pictures have the same name in all folders; {choices} choices and {judged} "
                             f"judged ones need {max(choices, 2 * judged, 1)}, since judged real ones are others. "
                             "Lower --choices or --judged; 0 leaves that part out")
        self.files = {REAL: by_stem(real)} | {name: by_stem(folder) for name, folder in methods.items()}
        self.seed, self.random = seed, random.Random(seed)
        first = open_rgb(self.files[sorted(methods)[0]][names[0]])
        self.size = size or (first.height, first.width)
        self._named: dict[tuple[str, str], str] = {}
        self.pages = [*self._judging(names, sorted(methods), judged), *self._choosing(names, sorted(methods), choices)]

    def _picture(self, method: str, name: str) -> str:
        """A file name that says nothing, not even by its order; the same picture keeps it."""
        if (method, name) not in self._named:
            self._named[method, name] = f"{self.random.getrandbits(48):012x}.png"
        return self._named[method, name]

    def _judging(self, names: list[str], methods: list[str], count: int) -> list[Page]:
        """A page per method, in a random order, called by numbers."""
        if not count:
            return []
        drawn = self.random.sample(names, 2 * count)
        pages = []
        for number, method in enumerate(self.random.sample(methods, len(methods)), start=1):
            shown = [(REAL, name) for name in drawn[:count]] + [(method, name) for name in drawn[count:]]
            self.random.shuffle(shown)
            pictures = [self._picture(*entry) for entry in shown]
            pages.append(Page(f"judge_{number}", "judge", tuple(Question(Path(file).stem, (file,)) for file in pictures)))
        return pages

    def _choosing(self, names: list[str], methods: list[str], count: int) -> list[Page]:
        questions = []
        for name in self.random.sample(names, count):
            truth = self._picture(REAL, name)
            candidates = [self._picture(method, name) for method in self.random.sample(methods, len(methods))]
            questions.append(Question(Path(truth).stem, tuple(candidates), truth))
        return [Page("choose", "choose", tuple(questions))] if count else []

    @property
    def key(self) -> dict[str, dict[str, str]]:
        """File in `pictures/` -> its method and the name of the picture, by file name."""
        return {file: {"method": method, "name": name} for (method, name), file in
                sorted(self._named.items(), key=lambda item: item[1])}

    def write(self, out: Path) -> list[Path]:
        """Writes `people/` (pages and pictures, to be handed out) and `key.json` (to be kept) -> the pages.

        Pictures are of one size and kind, real ones too (Pillow's bicubic), without the metadata of their files. Raises
        ValueError when `out` has a study already.
        """
        if (out / KEY).exists():
            raise ValueError(f"{out} has a study already; answers to it could no longer be told apart. Choose another --out")
        (out / "people" / "pictures").mkdir(parents=True, exist_ok=True)
        for file, entry in self.key.items():   # by file name, so that the times of the files tell nothing either
            copy(self.files[entry["method"]][entry["name"]], out / "people" / "pictures" / file, self.size)
        identity = f"{self.random.getrandbits(64):016x}"
        template = PAGE.read_text(encoding="utf-8")
        pages = []
        for page in self.pages:
            data = json.dumps({"study": identity, "seed": self.seed} | asdict(page)).replace("<", "\\u003c")
            pages.append(out / "people" / f"{page.name}.html")
            pages[-1].write_text(template.replace("{{DATA}}", data), encoding="utf-8")
        key = {"study": identity, "seed": self.seed, "size": list(self.size), "pages": [asdict(page) for page in self.pages],
               "pictures": self.key}
        (out / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")
        return pages


def copy(source: Path, target: Path, size: tuple[int, int]) -> None:
    open_rgb(source).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(target)
