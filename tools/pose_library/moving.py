"""Poses of people who move: walking and running cycles, dance, sport."""

from __future__ import annotations

import numpy as np

from .angles import AKIMBO, Entry, arm, bone, leg, swinging

# Hip and knee in degrees at eight phases of a leg's cycle, from the heel's strike on.
WALK = ((26, 4), (18, 14), (6, 8), (-8, 4), (-19, 14), (-10, 48), (12, 60), (27, 28))
RUN = ((34, 22), (14, 38), (-4, 24), (-24, 12), (-22, 62), (4, 104), (38, 104), (50, 62))
FEET = {"walking": (16, 0, 0, -4, -28, -34, -8, 12), "running": (14, 0, 0, -30, -52, -40, -10, 8)}


def cycle(kind: str, table: tuple, reach: float, elbow: float, lean: float, yaw: float, words: str) -> list[Entry]:
    """Eight entries; an arm goes forward with the leg of the other side. reach: degrees that arms swing."""
    made = []
    for phase in range(8):
        legs, arms = [], []
        for start in (phase, phase + 4):  # right, left
            flex, knee = table[start % 8]
            legs.append(leg(1.5, flex + lean * 0.4, knee, 0.5, FEET[kind][start % 8]))
            swing = -reach * np.cos(2 * np.pi * (start % 8) / 8)
            arms.append(swinging(float(swing) + (8 if elbow > 50 else 0), elbow + 0.2 * float(swing), 9))
        turn = 9 * np.cos(2 * np.pi * phase / 8)
        made.append(
            Entry(
                f"{kind} {phase + 1} of 8",
                kind,
                words,
                tuple(arms),
                tuple(legs),
                (lean, 0, float(-turn)),
                (float(turn) * 0.8, -lean * 0.4, 0),
                yaw=yaw,
            )
        )
    return made


ROUND = bone((0.58, 0.78, 0.22), (-0.74, 0.62, 0.14))  # over the head, as in ballet
GUARD = arm(32, 62, 138, (-0.10, 1.0, 0.55))

MOVING = [
    *cycle("walking", WALK, 24, 16, 3, -62, "walk stroll step cycle side"),
    *cycle("running", RUN, 44, 88, 11, -75, "run jog sprint cycle side"),
    Entry(
        "walking towards the camera",
        "walking",
        "walk front stroll",
        (swinging(-22, 12), swinging(24, 22)),
        (leg(1, 24, 8), leg(1, -18, 26)),
        (2, 0, 8),
    ),
    Entry(
        "walking away",
        "walking",
        "walk back rear",
        (swinging(-22, 12), swinging(24, 22)),
        (leg(1, 22, 8), leg(1, -18, 30, foot=-25)),
        (2, 0, 8),
        yaw=172,
    ),
    Entry(
        "arabesque",
        "dancing",
        "ballet one leg",
        (arm(96, 62, 6), arm(92, -8, 8)),
        (leg(2, 12, 0, foot=-8), leg(4, -72, 12, foot=-75)),
        (34, 0, 0),
        (0, -18, 0),
        (0, 12, 0),
        yaw=-80,
    ),
    Entry(
        "ballet, arms overhead",
        "dancing",
        "fifth position",
        (ROUND, ROUND),
        (leg(-2, -2, 1, foot=-38), leg(-6, 5, 4, -6, -38)),
        yaw=-20,
    ),
    Entry(
        "ballet, passe",
        "dancing",
        "pirouette one leg turn",
        (ROUND, arm(62, 55, 42, (-0.9, 0.1, 0.6))),
        (leg(0, 0, 0, foot=-38), bone((0.72, -0.58, 0.42), (-0.86, -0.50, -0.10), -60)),
        yaw=-15,
    ),
    Entry(
        "disco, pointing up",
        "dancing",
        "party seventies",
        (arm(148, 8, 6), arm(50, -28, 96, (-1.0, 0.02, 0.3))),
        (leg(6, -2, 2), leg(24, 8, 20, 8)),
        (0, 8, 4),
        (-14, -8, 0),
    ),
    Entry(
        "dancing, arms out",
        "dancing",
        "spin swing party",
        (arm(78, 12, 30, (0.1, 1.0, 0.4)), arm(96, 6, 24, (0.2, 1.0, 0.2))),
        (leg(3, 24, 34, 0), leg(4, -10, 26)),
        (2, -6, 14),
        (-12, 0, 0),
        yaw=-20,
    ),
    Entry(
        "salsa step",
        "dancing",
        "latin couple",
        (arm(44, 58, 84, (-0.5, 0.6, 0.8)), arm(58, 22, 76, (0.1, 1.0, 0.6))),
        (leg(-2, 18, 24, -4), leg(2, -14, 16)),
        (0, 7, -12),
        (10, 0, 5),
        yaw=-25,
    ),
    Entry(
        "hip hop, low stance",
        "dancing",
        "street crouch",
        (arm(58, 30, 78, (-0.5, -0.4, 1.0)), arm(52, -18, 92, (0.2, 0.3, 1.0))),
        (leg(30, 48, 74, 16), leg(32, 40, 66, 20)),
        (24, 6, -10),
        (0, -14, 0),
        yaw=-20,
    ),
    Entry(
        "high kick, dancing",
        "dancing",
        "cancan show",
        (arm(92, 8, 4), arm(92, 8, 4)),
        (leg(2, -2, 2), leg(5, 98, 6, foot=40)),
        (-5, 0, 0),
        yaw=-45,
    ),
    Entry(
        "leap",
        "dancing",
        "split jump ballet jete",
        (arm(96, 68, 6), arm(96, -6, 6)),
        (leg(2, 82, 6, foot=32), leg(3, -44, 14, foot=-72)),
        (4, 0, -8),
        (0, -8, 0),
        (0, 2, 0),
        yaw=-75,
    ),
    Entry(
        "star jump",
        "sport",
        "jumping jack gym",
        (arm(142, 0, 4), arm(142, 0, 4)),
        (leg(30, 0, 4, foot=-30), leg(30, 0, 4, foot=-30)),
    ),
    Entry(
        "jump, knees up",
        "sport",
        "joy leap",
        (arm(140, 20, 30, (0.1, 1.0, 0.2)),) * 2,
        (leg(7, 62, 96), leg(9, 48, 98)),
        (6, 0, 0),
        yaw=-35,
    ),
    Entry(
        "squat",
        "sport",
        "gym crouch",
        (arm(86, 74, 8), arm(86, 74, 8)),
        (leg(16, 92, 112, 8), leg(16, 92, 112, 8)),
        (30, 0, 0),
        (0, -16, 0),
        yaw=-55,
    ),
    Entry(
        "lunge",
        "sport",
        "gym step knee",
        (AKIMBO, AKIMBO),
        (leg(4, 84, 84, 2), leg(3, -22, 66, foot=-60)),
        (4, 0, 0),
        yaw=-65,
    ),
    Entry(
        "boxing guard",
        "sport",
        "fight martial",
        (GUARD, arm(44, 66, 118, (-0.1, 0.9, 0.9))),
        (leg(8, -14, 16), leg(8, 22, 24)),
        (8, 0, -24),
        (20, 4, 0),
        yaw=-20,
    ),
    Entry(
        "punch",
        "sport",
        "fight boxing",
        (arm(88, 84, 4), GUARD),
        (leg(10, -22, 8), leg(9, 34, 40)),
        (12, 0, 32),
        (-24, 0, 0),
        yaw=-60,
    ),
    Entry(
        "side kick",
        "sport",
        "karate martial fight",
        (arm(34, 60, 120, (-0.4, 1.0, 0.5)), arm(34, 60, 120, (-0.4, 1.0, 0.5))),
        (leg(8, 0, 6), leg(82, 8, 5, 82, 10)),
        (0, -30, 0),
        (20, 0, 20),
        (0, 0, -16),
    ),
    Entry(
        "throwing",
        "sport",
        "ball pitch",
        (bone((0.78, 0.42, -0.46), (-0.20, 0.90, -0.38)), arm(88, 62, 10)),
        (leg(6, -26, 24), leg(6, 42, 22)),
        (-6, 0, -30),
        (20, 0, 0),
        yaw=-60,
    ),
    Entry(
        "kicking a ball",
        "sport",
        "football soccer",
        (arm(48, 48, 24), arm(62, -34, 18)),
        (leg(4, -34, 58, foot=-60), leg(4, 12, 22)),
        (10, 0, 10),
        (0, 10, 0),
        yaw=-75,
    ),
    Entry(
        "tennis serve",
        "sport",
        "racket ball",
        (bone((0.66, 0.60, -0.44), (-0.30, 0.30, -0.90)), arm(166, 30, 4)),
        (leg(4, 4, 26), leg(6, 14, 24)),
        (-12, 4, -14),
        (10, -28, 0),
        yaw=-55,
    ),
    Entry(
        "tree pose",
        "sport",
        "yoga balance one leg",
        (bone((0.52, 0.84, 0.10), (-0.30, 0.95, 0.06)),) * 2,
        (leg(0, 0, 0), bone((0.80, -0.52, 0.28), (-0.90, -0.42, -0.06), -60)),
    ),
    Entry(
        "warrior",
        "sport",
        "yoga lunge",
        (arm(90, 0, 2), arm(90, 0, 2)),
        (bone((0.92, -0.20, 0.30), (0.05, -1.0, -0.02), 0), leg(42, -4, 2, 42, 0)),
        head=(-70, 0, 0),
    ),
    Entry(
        "side stretch",
        "sport",
        "yoga gym bend",
        (arm(168, 6, 22, (-1.0, 0.5, 0.1)), arm(36, 10, 18)),
        (leg(14), leg(14)),
        (0, 26, 0),
        (0, 0, 10),
    ),
    Entry(
        "skating",
        "sport",
        "glide ice roller",
        (arm(60, 70, 10), arm(52, -58, 8)),
        (leg(6, 52, 62, 4), leg(14, -38, 8, 14, -38)),
        (38, 0, 0),
        (0, -26, 0),
        yaw=-70,
    ),
]
