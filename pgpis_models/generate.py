"""`python -m pgpis_models.generate`: one picture, or folders of photos and poses, without ComfyUI.

    python -m pgpis_models.generate --checkpoint C --source A.png --pose B.json --out O.png
    python -m pgpis_models.generate --checkpoint C --source A.png --pose POSES/ --out PICTURES/
    python -m pgpis_models.generate --checkpoint C --source FRONT.png --photos BACK.png --pose B.json --out O.png
    python -m pgpis_models.generate --checkpoint C --source PHOTOS/ --pose POSES/ --each 8 --out PICTURES/
    python -m pgpis_models.generate --checkpoint C --source PHOTOS/ --pose POSES/ --pairs FILE.csv --out PICTURES/
    python -m pgpis_models.generate --checkpoint C --source A.png --pose VIDEO.npy --canvas 260x210 --sequence --out O.webp

--fit takes a photo of any size and shape, --paste puts the result back into it. --donor is another person whose clothes are
put on (--garment, --mask), or with whom the first is mixed (--blend). With an MCLD checkpoint poses are IUV
pictures, and the person's own is given with --source-densepose. From any folder, and with a Python that does not look for
packages in the folder that it runs in (ComfyUI's portable one):

    python PATH/TO/pgpis_models/generate.py --checkpoint C ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:   # run as a file: as part of the package instead, whose folder must not be searched for other packages
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
    from pgpis_models.generate import main
    sys.exit(main())

import torch
from tqdm import tqdm

from .checkpoint import read_metadata
from .command import edit, mcld, person, photos, poses, qen, sequence, sources
from .command.batches import launched
from .command.flags import check_counts, check_there, read_weight
from .command.output import STILL, check_ending, save
from .noise.samplers import SAMPLERS
from .pipeline import Generator
from .poses.wholebody import POINTS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pgpis_models.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a method checkpoint of this pack")
    parser.add_argument("--source", type=Path, required=True, help="photo of the person, or a folder of them")
    parser.add_argument("--pose", type=Path, required=True, help="pose file (JSON, txt, csv, npy) or photo (MCLD: IUV "
                        "picture), or a folder of them")
    sources.add_flags(parser)
    sequence.add_flags(parser)
    poses.add_flags(parser)
    person.add_flags(parser)
    photos.add_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="picture, or a folder when --pose or --source is one")
    parser.add_argument("--base", default="", help="diffusers folder of the base model (not for demo checkpoints)")
    parser.add_argument("--vae", default="", help="autoencoder; default: that of the base")
    mcld.add_flags(parser)
    qen.add_flags(parser)
    edit.add_flags(parser)
    parser.add_argument("--mode", default=None, help="guidance mode; default: the authors' of the method")
    parser.add_argument("--weight", action="append", default=[], metavar="TERM=W", help="guidance weight, repeatable")
    parser.add_argument("--lora", default="", help="LoRA of the base's UNet, such as one that training/train.py distilled")
    parser.add_argument("--steps", type=int, default=None, help="default: what the file says, or suits the method")
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), default=None, help="default: as with --steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=4, help="poses made at once")
    parser.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def run(options: argparse.Namespace) -> None:
    """Everything after the command line is read."""
    sequence.check_flags(options)
    sources.check_flags(options)
    person.check_flags(options)
    edit.check_flags(options)
    check_counts(options, ("steps", "batch", "each"))
    check_there(options, ("checkpoint", "source", "pose"))
    process = launched()
    if process.count > 1 and (options.ray or not options.source.is_dir()):
        raise ValueError(f"{process.count} processes were launched; expected one, or a folder of photos as --source, of one "
                         "photo at least, whose pictures they share; with --ray one")
    if not options.ray:
        options.device = process.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    weights = dict(read_weight(item) for item in options.weight)
    meta = read_metadata(options.checkpoint)
    method, fusion = meta.method, meta.config.get("fusion")
    whole = isinstance(fusion, dict) and fusion.get("points") == POINTS
    control, choice = qen.control_of(options, method), poses.choice_of(options, method, whole)
    mcld.check_flags(options, method)
    edit.check_method(options, method)
    photos.check_flags(options, method)
    if options.sequence:
        return sequence.run(options, method, choice, weights, control)
    if options.source.is_dir():
        return sources.run(options, method, choice, weights, control, process)
    folder, dense = options.pose.is_dir(), method == "mcld"
    if not folder and not options.blend_steps:
        check_ending(options.out, STILL)
    listed = poses.picture_files if dense else poses.pose_files
    files = listed(options.pose) if folder else [options.pose]
    # all of them first: a bad one is known before hours of work
    nobody = method == "qen"   # without a person its attention is not masked, which it says
    targets = [mcld.read_iuv(path) if dense else poses.read_pose(path, choice, nobody) for path in files]
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device, options.lora)
    own = mcld.read_iuv(options.source_densepose) if options.source_densepose else None
    shown = person.Person(options, generator.method.config, **{"denseposes" if dense else "poses": targets}, densepose=own)
    several = photos.Several(options, generator, shown) if options.photos else None
    if options.garment:
        edit.check_views(options, shown, targets[0])
    targets = shown.denseposes if dense else shown.poses
    if not dense:
        extras = control
    elif several:
        extras = several.of_mcld(options, generator)
    else:
        extras = mcld.person_of(generator, shown.photo, shown.densepose, options.texture, options.face, options.clip)
    for sentence in [shown.said, *(several.said if several else ())]:
        if sentence:
            print(sentence)
    shown.warn(generator.picture_size, several.people[1:] if several else ())
    if options.seen:
        several.save_seen(options, generator)
    source = several.source if several else generator.prepare(shown.photo)
    edited = edit.edit_of(options, generator, shown, control) if options.donor else None
    many = folder or options.blend_steps
    outputs = edit.outputs_of([options.out / f"{p.stem}.png" for p in files] if many else [options.out], edited)
    outputs[0].parent.mkdir(parents=True, exist_ok=True)
    steps = options.steps or generator.defaults["steps"]
    each, mask = (1, None) if edited is None else (edited.each, None if edited.mask is None else edited.mask[0, 0])
    with tqdm(total=len(outputs) * steps, unit="step") as bar:
        for start in range(0, len(files), options.batch):
            chunk = slice(start, start + options.batch)
            some, iuvs = targets[chunk], {"densepose": targets[chunk]} if dense else {}
            together = {"one_person": several.weights(some)} if several else {}
            sampling = {"mode": options.mode, "weights": weights, "steps": steps, "sampler": options.sampler,
                        "seed": options.seed, "first": start, "callback": lambda *_, n=len(some): bar.update(n * each)}
            made = generator(source, some, **sampling, **extras, **iuvs, **together) if edited is None else \
                edited.made(generator, source, some, extras, iuvs, **sampling)
            for path, picture in zip(outputs[start * each:][:len(made)], made, strict=True):
                save(shown.finished(picture, mask), path)


if __name__ == "__main__":
    main()
