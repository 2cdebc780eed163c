"""What the host is told of the nodes, and what importing them costs."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"diffusers", "transformers", "cv2", "accelerate", "insightface", "skimage", "controlnet_aux"}
PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nodes(host):
    extension = asyncio.new_event_loop().run_until_complete(host.pack().comfy_entrypoint())
    return asyncio.new_event_loop().run_until_complete(extension.get_node_list())


@pytest.mark.hosts
def test_every_node_input_and_output_explains_itself(nodes):
    assert len(nodes) >= 10
    for node in nodes:
        schema = node.GET_SCHEMA()  # validates
        assert schema.node_id.startswith("PGPIS") and schema.category.startswith("PGPIS/"), schema.node_id
        assert schema.display_name and schema.description, schema.node_id
        for one in [*schema.inputs, *schema.outputs]:
            assert one.tooltip and len(one.tooltip) > 10, (schema.node_id, one.id or one.display_name)
        for one in schema.outputs:
            assert one.display_name, schema.node_id


def test_node_ids_and_their_inputs_are_in_the_saved_order(nodes):
    """Saved workflows depend on both, and since 0.2.0 on this table: ids are added, never renamed, and a new input comes
    behind, optional, since the host lists optional ones after all others."""
    schemas = {schema.node_id: schema for schema in (node.define_schema() for node in nodes)}
    table = {name: [one.id for one in schema.inputs] for name, schema in schemas.items()}
    expected = {
        "PGPISLoadCheckpoint": ["file"],
        "PGPISLoadPreset": ["preset", "base_model"],
        "PGPISLoadDemoBase": [],
        "PGPISLoadPose": ["file", "text", "canvas_width", "canvas_height", "min_confidence"],
        "PGPISDrawPose": ["pose", "width", "height", "person"],
        "PGPISEditPose": ["pose", "mirror", "scale", "shift_right", "shift_down", "person", "retarget_to"],
        "PGPISExtractPose": ["image", "detector"],
        "PGPISAppearanceEmbedding": ["method", "source", "pose", "person", "photos", "source_pose"],
        "PGPISBlendAppearance": ["first", "second", "weight", "steps"],
        "PGPISFusionEmbedding": ["method", "source", "pose", "person", "empty_frames", "target", "photos", "source_pose"],
        "PGPISPoseSequenceSampler": ["model", "method", "source", "pose", "person", "empty_frames", "seed", "noise", "steps",
                                     "cfg", "sampler_name", "scheduler", "chunk", "densepose"],
        "PGPISBodyNoise": ["noise_seed", "densepose", "pose", "person"],
        "PGPISHoldFirstFrame": ["model", "strength"],
        "PGPISQueryEmbedding": ["method", "source", "pose", "person", "strength", "start_percent", "end_percent", "mask",
                                "photos", "source_pose"],
        "PGPISPoseMask": ["width", "height", "blur", "threshold", "person", "pose", "image"],
        "PGPISAttentionMaps": ["method", "source", "kind", "queries", "block"],
        "PGPISFitPerson": ["method", "image", "pose", "densepose", "mask", "target_pose", "target_densepose", "person",
                           "padding", "movement", "proportions"],
        "PGPISPasteBack": ["image", "frame", "original", "feather", "match_colours", "mask"],
        "PGPISApply": ["model", "positive", "negative", "latent", "cond", "start_percent", "end_percent"],
        "PGPISPoseTransfer": ["model", "positive", "negative", "latent", "method", "image", "pose", "densepose",
                              "source_densepose", "texture", "face", "clip_vision", "vae", "mask", "person", "start_percent",
                              "end_percent", "control_strength", "face_weight", "fit", "source_pose", "proportions",
                              "source_person", "source_mask", "photos"],
        "PGPISGuider": ["model", "cond", "mode", "pose", "appearance", "biases", "prompt", "source", "fusion",
                        "start_percent", "end_percent"],
        "PGPISMaskedSampler": ["latent", "vae", "reference", "mask", "feather", "seed", "steps", "cfg", "sampler_name",
                               "scheduler", "denoise", "guider", "model", "positive", "negative", "grow", "fade"],
        "PGPISGarmentMask": ["image", "part", "densepose", "pose", "person", "donor", "donor_densepose", "donor_pose"],
        "PGPISEstimateDensePose": ["image", "file", "person", "parts"],
        "PGPISReadIUV": ["image", "order", "parts"],
        "PGPISWarpTexture": ["image", "densepose", "layout", "mode", "fill", "mask"],
        "PGPISRenderTexture": ["texture", "densepose", "background"],
        "PGPISEditTexture": ["texture", "donor", "parts", "only_known", "mask"],
        "PGPISMergePhotos": ["image", "densepose", "layout", "mode", "fill", "image_2", "densepose_2", "image_3",
                             "densepose_3", "image_4", "densepose_4", "target_densepose"],
        "PGPISFaceEmbedding": ["image", "model", "face", "method", "densepose", "file"],
        "PGPISMultiFocalEmbedding": ["method", "source", "densepose", "face_weight", "texture", "face", "clip_vision", "vae",
                                     "model", "photos"],
        "PGPISPoseEditor": ["text", "width", "height", "pose", "image"],
        "PGPISReadSkeleton": ["image", "channels"],
        "PGPISPoseScore": ["wanted", "found", "image", "face", "result_face", "choose_by", "person"],
        "PGPISDemoPicture": ["picture"],
        "PGPISPoseMannequin": ["state", "width", "height", "stature", "shoulders", "hips", "arms", "legs", "views",
                               "as_person", "person"],
        "PGPISPoseLibrary": ["name", "width", "height", "as_person", "person"],
        "PGPISSavePose": ["pose", "filename", "folder", "overwrite"],
        "PGPISFollowPerson": ["pose", "person", "min_confidence"],
        "PGPISSmoothPoses": ["pose", "strength", "gap", "person"],
        "PGPISPoseTween": ["first", "second", "third", "fourth", "frames", "easing", "loop", "person"],
        "PGPISCompareGrid": ["image_1", "image_2", "image_3", "image_4", "image_5", "image_6", "target", "labels"],
    }
    assert {name: inputs[:len(expected[name])] for name, inputs in table.items() if name in expected} == expected
    added = [one for name, inputs in expected.items() for one in schemas[name].inputs[len(inputs):]]
    assert [one.id for one in added if not one.optional] == []


def test_files_that_are_no_methods_are_not_offered(host, nodes, demo):
    import folder_paths
    (demo.folder / "some_adapter.safetensors").touch()
    try:
        folder_paths.filename_list_cache.pop("pgpis", None)
        assert "some_adapter.safetensors" in folder_paths.get_filename_list("pgpis")
        [load] = [node for node in nodes if node.define_schema().node_id == "PGPISLoadCheckpoint"]
        offered = load.define_schema().inputs[0].options
        assert "cfld_tiny.safetensors" in offered
        assert not {"some_adapter.safetensors", "demo_base.safetensors", "demo_vae.safetensors"} & set(offered)
    finally:
        (demo.folder / "some_adapter.safetensors").unlink()
        folder_paths.filename_list_cache.pop("pgpis", None)


@pytest.mark.hosts
def test_the_host_knows_the_nodes_and_their_folder(host, nodes, demo):
    import folder_paths
    for node in nodes:
        assert node.define_schema().node_id in host.nodes.NODE_CLASS_MAPPINGS
    paths, extensions = folder_paths.folder_names_and_paths["pgpis"]
    assert str(host.base / "models" / "pgpis") in paths and extensions == {".safetensors", ".bin", ".ckpt", ".pt", ".pth"}
    assert any(path.endswith("models/demo") for path in paths)
    assert "cfld_tiny.safetensors" in folder_paths.get_filename_list("pgpis")
    assert {f"demo_{name}_lcm.safetensors" for name in ("cfld", "mcld", "fpdm", "qen")} <= set(
        folder_paths.get_filename_list("loras"))


@pytest.mark.hosts
def test_importing_the_pack_is_cheap_and_loads_nothing_heavy(host):
    script = f"""
import asyncio, json, os, sys, time
sys.argv = ["main.py", "--cpu", "--disable-api-nodes", "--base-directory", {str(host.base)!r}]
comfy_folder = {str(Path(host.nodes.__file__).parent)!r}
sys.path.insert(0, comfy_folder); os.chdir(comfy_folder)
import comfy.options; comfy.options.enable_args_parsing()
import utils.extra_config, nodes, server, comfy.samplers, latent_preview
import comfy_api.latest, comfy_config.config_parser, tomllib  # the host's own, for any pack
asyncio.set_event_loop(asyncio.new_event_loop())
server.PromptServer(asyncio.get_event_loop())
before, start = set(sys.modules), time.process_time()
done = asyncio.get_event_loop().run_until_complete(nodes.load_custom_node({str(host.base / "custom_nodes" / "pgpis")!r}))
print(json.dumps([done, time.process_time() - start, sorted(set(sys.modules) - before)]))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    done, seconds, modules = json.loads(result.stdout.strip().splitlines()[-1])
    print(f"import of the pack: {seconds:.3f} processor seconds, {len(modules)} modules")
    assert done
    assert not HEAVY & {name.split(".")[0] for name in modules}


def test_nodes_keep_the_rules_of_import_and_of_the_registry():
    """Only nodes import comfy; nodes never import training; nothing that the registry's scan flags."""
    banned = {"os.environ", "subprocess", "urllib", "requests", "socket"}
    for path in sorted((PACK / "nodes").rglob("*.py")):
        text, tree = path.read_text(), ast.parse(path.read_text())
        assert len(text.splitlines()) < 330, path.name
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {f"{'.' * node.level}{node.module or ''}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in names if "training" in name or name.split(".")[0] in banned}, path.name
        assert "os.environ" not in text and "strict=False" not in text, path.name
        calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert not calls & {"eval", "exec", "compile", "print"}, path.name
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None], path.name
    # The scan looks for words, in comments too, in all that is published: a module's eval() among them.
    words = re.compile(r"\beval\(|\bexec\(|\bos\.system|\bos\.environ|\bgetenv|\bsubprocess\b|\burllib\b|\bsocket\b")
    for path in sorted(path for folder in ("nodes", "pgpis_models", "training") for path in (PACK / folder).rglob("*.py")):
        assert not (found := words.findall(path.read_text())), (path.name, found)
    for path in sorted((PACK / "pgpis_models").glob("*.py")):
        names = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
                 for alias in node.names}
        assert not {name for name in names if name.split(".")[0] in ("comfy", "nodes", "folder_paths")}, path.name
