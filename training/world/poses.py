"""Poses drawn from a seed: standing, walking, sitting, crossed legs, gestures of the arms, and the picture's framing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pgpis_models.body.skeleton import Arm, Build, Leg, Pose, about_up, build_skeleton

_FORWARD, _INWARD, _UP = (-0.15, 0.25, 1.0), (-1.0, 0.02, 0.30), (-0.12, 1.0, 0.25)
_GESTURES = ("hang", "akimbo", "wave", "up", "out", "hold", "reach", "chin")
_ODDS = (0.34, 0.16, 0.12, 0.06, 0.10, 0.12, 0.06, 0.04)
_SITTING = {"hang": "lap", "out": "lap", "up": "lap", "akimbo": "lap"}
_TRIES = 40


def sample_pose(seed: int, heading: float | None = None) -> Pose:
    """The pose of this seed. Of four poses in a row (seeds 4 n to 4 n + 3) two are closer views. heading: degrees from the
    camera, in place of the seed's own."""
    rng = np.random.default_rng((seed, 7102))
    for _ in range(_TRIES):
        pose = _sample(rng, _closer(seed), heading)
        if not _collides(pose):
            break
    return pose


def _closer(seed: int) -> bool:
    """In most groups of 64 seeds (a person's views, see bank.py) neighbours differ in framing; in some they are pairs."""
    turned, paired = np.random.default_rng((seed // 64, 7103)).random(2)
    order = (0, 0, 1, 1) if paired < 0.35 else (0, 1, 1, 0)
    return (order[seed % 4] == 1) != (turned < 0.5)


def _sample(rng, closer: bool, given: float | None) -> Pose:
    def u(low, high):
        return float(rng.uniform(low, high))

    kind = rng.random()
    if kind < 0.55:
        heading = u(-48, 48)
    elif kind < 0.83:
        heading = u(48, 115) * (1 if rng.random() < 0.5 else -1)
    else:
        heading = 180 + u(-50, 50)
    heading = heading if given is None else given
    first = str(rng.choice(_GESTURES, p=_ODDS))
    second = first if rng.random() < 0.40 else str(rng.choice(_GESTURES, p=_ODDS))
    stance = rng.random()
    seated = stance > 0.68
    if seated:
        first, second = _SITTING.get(first, first), _SITTING.get(second, second)
    arms = [_sample_arm(rng, first), _sample_arm(rng, second)]
    legs, lean = (_sit(rng, u), u(-0.02, 0.22)) if seated else (None, u(-0.05, 0.12))
    if legs is None:
        legs, stride = _stand(rng, u, stance)
        if stride and first == second == "hang":  # the arm opposite to the leading leg goes forward
            swing = u(0.25, 0.55)
            arms = [Arm(swing, -1.25, u(0.1, 0.3), _FORWARD), Arm(swing, 1.25, u(0.3, 0.8), _FORWARD)]
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    turned = math.radians((heading + 180) % 360 - 180)
    twist = u(-0.22, 0.22)
    head_turn = u(-0.35, 0.35)
    if abs(turned) > 0.6 and rng.random() < 0.65:   # people who stand sideways mostly look at the camera
        head_turn = float(np.clip(-(turned + twist) * u(0.5, 0.9), -0.95, 0.95))
    raised = any(arm.lift > 1.0 for arm in arms)
    if closer:
        zoom, scale, x = u(1.6, 2.3), u(0.82, 0.90), u(-0.03, 0.03)
        y = u(0.14, 0.22) if raised and zoom < 1.9 else u(0.045, 0.10)
    else:
        zoom, scale, x, y = 1.0, u(0.80, 0.90), u(-0.03, 0.03), u(-0.015, 0.010)
    return Pose(turned, lean=lean, tilt=u(-0.09, 0.09), head_turn=head_turn, head_nod=u(-0.16, 0.10), arms=tuple(arms),
                legs=tuple(legs), scale=scale, x=x, y=y, zoom=zoom, twist=twist, head_roll=u(-0.14, 0.14), seated=seated)


def _sample_arm(rng, gesture: str) -> Arm:
    def u(low, high):
        return float(rng.uniform(low, high))

    if gesture == "hang":
        return Arm(u(0.10, 0.26), u(-0.3, 0.4), u(0.08, 0.40), _FORWARD)
    if gesture == "akimbo":
        return Arm(u(0.72, 0.90), u(-0.45, -0.20), u(1.55, 1.80), _INWARD)
    if gesture == "wave":
        return Arm(u(1.05, 1.70), u(-0.1, 0.35), u(1.10, 1.85), _UP)
    if gesture == "up":
        return Arm(u(2.35, 2.85), u(-0.1, 0.3), u(0.05, 0.50), _UP)
    if gesture == "out":
        return Arm(u(0.45, 1.20), u(-0.2, 0.4), u(0.05, 0.50), _FORWARD)
    if gesture == "hold":  # forearm in front of the body
        return Arm(u(0.20, 0.45), u(0.3, 1.0), u(1.30, 1.90), (-0.60, 0.2, 1.0))
    if gesture == "chin":  # hand near the chin
        return Arm(u(0.45, 0.65), u(1.1, 1.4), u(2.15, 2.40), (-0.42, 1.0, 0.35))
    if gesture == "lap":   # hand on the thigh
        return Arm(u(0.22, 0.38), u(0.7, 1.2), u(0.75, 1.05), (-0.22, 0.25, 1.0))
    return Arm(u(0.50, 1.20), u(1.25, 1.60), u(0.10, 0.90), (-0.2, 0.5, 0.8))  # reach forwards


def _stand(rng, u, stance: float) -> tuple[list[Leg], bool]:
    """Two legs, and whether they walk."""
    if stance < 0.20:  # weight on both
        return [Leg(u(0.03, 0.12), u(-0.04, 0.06), u(0.0, 0.08)) for _ in range(2)], False
    if stance < 0.31:  # one leg at ease: its knee forward and out
        return [Leg(u(0.00, 0.05), u(-0.03, 0.03), 0.02),
                Leg(u(0.10, 0.22), u(0.15, 0.32), u(0.30, 0.55), u(0.0, 0.08))], False
    if stance < 0.37:  # legs apart
        return [Leg(u(0.16, 0.30), u(-0.05, 0.05), u(0.0, 0.10)) for _ in range(2)], False
    if stance < 0.47:  # crossed at the shins
        return [Leg(u(-0.05, -0.01), u(-0.08, -0.03), 0.02),
                Leg(u(-0.19, -0.13), u(0.16, 0.22), u(0.12, 0.22), u(-0.26, -0.20))], False
    if stance < 0.64:  # walk
        stride = u(0.25, 0.52)
        return [Leg(u(0.0, 0.05), stride * u(0.8, 1.0), u(0.05, 0.25)),
                Leg(u(0.0, 0.05), -stride * u(0.6, 0.95), u(0.15, 0.70))], True
    return [Leg(u(0.02, 0.08), u(0.0, 0.06), u(0.0, 0.05)), Leg(u(0.04, 0.16), u(0.5, 1.0), u(0.8, 1.5))], False  # knee up


def _sit(rng, u) -> list[Leg]:
    kind = rng.random()
    if kind < 0.40:   # knees side by side or apart
        apart = u(0.03, 0.26)
        return [Leg(apart + u(-0.03, 0.03), u(1.40, 1.52), u(1.35, 1.65), apart * u(-0.2, 0.5)) for _ in range(2)]
    if kind < 0.75:   # one thigh over the other
        return [Leg(u(0.00, 0.05), u(1.40, 1.48), u(1.45, 1.60), 0.02),
                Leg(u(-0.20, -0.14), u(1.78, 1.86), u(1.45, 1.65), u(-0.02, 0.10))]
    if kind < 0.88:   # ankles crossed
        return [Leg(u(0.08, 0.14), u(1.42, 1.50), u(1.25, 1.35), -0.26),
                Leg(u(0.08, 0.14), u(1.42, 1.50), u(0.98, 1.08), -0.26)]
    # one stretched
    return [Leg(u(0.03, 0.10), u(1.42, 1.50), u(1.45, 1.65)), Leg(u(0.05, 0.16), u(1.40, 1.50), u(0.35, 0.75))]


def _collides(pose: Pose) -> bool:
    """Forearms or hands deep in trunk, head, thighs or in each other, or an arm before the face, on an average build."""
    bones = build_skeleton(_AVERAGE, dataclasses.replace(pose, heading=0.0))
    reach = np.linspace(0.35, 1.0, 4)[:, None]
    arms = []
    for upper, lower in bones.arms:
        hand = lower.end + lower.frame[:, 2] * 0.06
        arms.append(np.concatenate([lower.origin + reach * (lower.end - lower.origin), hand[None],
                                    upper.origin + reach[1:3] * (upper.end - upper.origin)]))
    centres, frames = bones.spine
    points = np.concatenate([a[:5] for a in arms])
    local = (points - centres[7]) @ frames[-1]   # left, up, forward from the waist
    trunk = (np.abs(local[:, 1] - 0.06) < 0.15) & (np.hypot(local[:, 0] / 0.094, local[:, 2] / 0.074) < 1.0)
    skull = np.linalg.norm((points - bones.neck - bones.head[:, 1] * 0.13) / 1.0, axis=1) < 0.092
    far = 0.0
    for thigh, _ in bones.legs:
        along = np.clip((points - thigh.origin) @ thigh.frame[:, 2], 0, thigh.length)[:, None]
        far = np.maximum(far, 0.060 - np.linalg.norm(points - thigh.origin - along * thigh.frame[:, 2], axis=1))
    between = np.linalg.norm(arms[0][:5, None] - arms[1][None, :5], axis=2).min()
    # as the camera sees it, nearer than the head and within its outline
    to_camera = about_up(pose.heading)
    ahead = (np.concatenate(arms) - bones.neck - bones.head[:, 1] * 0.12) @ to_camera.T
    hidden = (ahead[:, 2] > 0) & (np.hypot(ahead[:, 0], ahead[:, 1]) < 0.080) & ((to_camera @ bones.head)[2, 2] > 0.2)
    return bool(hidden.any() or trunk.any() or skull.any() or far.max() > 0 or between < 0.045)


_AVERAGE = Build(head=1.08)
