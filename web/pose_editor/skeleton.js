// The 18 OpenPose-COCO joints, and their drawing on a 2D canvas context. Nothing here knows of the page or of the editor.

export const JOINTS = [
  "nose", "neck",
  "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
  "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
  "right eye", "left eye", "right ear", "left ear"
]
export const NOSE = 0, NECK = 1

// Joint i of the mirrored person is joint MIRROR[i] of the original.
export const MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]

// [from, to] in drawing order; parents come before their children.
export const LIMBS = [
  [1, 2], [1, 5], [2, 3], [3, 4], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10], [1, 11], [11, 12], [12, 13],
  [1, 0], [0, 14], [14, 16], [0, 15], [15, 17]
]
export const PARENT = JOINTS.map((_, joint) => LIMBS.find(([, to]) => to === joint)?.[0] ?? -1)   // -1 of the neck
export const CHILDREN = JOINTS.map((_, joint) => LIMBS.filter(([from]) => from === joint).map(([, to]) => to))

// OpenPose's rainbow, one colour per joint; limb i takes 60 % of colour i.
export const COLOURS = [
  [255, 0, 0], [255, 85, 0], [255, 170, 0], [255, 255, 0], [170, 255, 0], [85, 255, 0], [0, 255, 0], [0, 255, 85],
  [0, 255, 170], [0, 255, 255], [0, 170, 255], [0, 85, 255], [0, 0, 255], [85, 0, 255], [170, 0, 255],
  [255, 0, 255], [255, 0, 170], [255, 0, 85]
]

const rgb = ([red, green, blue], factor = 1) =>
  `rgb(${Math.floor(red * factor)} ${Math.floor(green * factor)} ${Math.floor(blue * factor)})`
const JOINT_STYLES = COLOURS.map((colour) => rgb(colour))
const LIMB_STYLES = COLOURS.map((colour) => rgb(colour, 0.6))

// A standing person seen from the front: x from the middle, y from the top, in shares of the person's frame.
const STANDING = [
  [0, 0.09], [0, 0.18],
  [-0.098, 0.18], [-0.132, 0.325], [-0.147, 0.46], [0.098, 0.18], [0.132, 0.325], [0.147, 0.46],
  [-0.06, 0.475], [-0.067, 0.695], [-0.073, 0.91], [0.06, 0.475], [0.067, 0.695], [0.073, 0.91],
  [-0.019, 0.072], [0.019, 0.072], [-0.041, 0.083], [0.041, 0.083]
]

/** The standing person in a canvas of these pixels: 18 [x, y]. */
export function standing(width, height) {
  const frame = Math.min(height, 2 * width)
  return STANDING.map(([x, y]) => [width / 2 + x * frame, (height - frame) / 2 + y * frame])
}

/** Half width in pixels of a limb in a picture of these sides, as OpenPose pictures have it. */
export const stickWidth = (width, height) => Math.max(1, 4 * Math.min(width, height) / 512)

/**
 * Draws limbs as ellipses and joints as discs, antialiased.
 * points: 18 of {x, y} in the context's units, or null where there is nothing to draw.
 * stick: half width of limbs. style: {alpha, radius: (joint) => radius of its disc, dashed: (joint) => whether it is hidden}.
 */
export function drawSkeleton(context, points, stick, { alpha = 1, radius = () => stick, dashed = () => false } = {}) {
  context.save()
  context.globalAlpha = alpha
  LIMBS.forEach(([from, to], limb) => {
    const a = points[from], b = points[to]
    if (!a || !b) return
    if (dashed(from) || dashed(to)) {
      context.save()
      context.strokeStyle = JOINT_STYLES[limb]
      context.globalAlpha = alpha * 0.45
      context.lineWidth = Math.max(stick * 0.3, 0.5)
      context.setLineDash([stick * 0.9, stick * 1.1])
      context.beginPath()
      context.moveTo(a.x, a.y)
      context.lineTo(b.x, b.y)
      context.stroke()
      context.restore()
      return
    }
    const dx = b.x - a.x, dy = b.y - a.y
    context.fillStyle = LIMB_STYLES[limb]
    context.beginPath()
    context.ellipse((a.x + b.x) / 2, (a.y + b.y) / 2, Math.max(Math.hypot(dx, dy) / 2, 0.01), stick, Math.atan2(dy, dx), 0,
      2 * Math.PI)
    context.fill()
  })
  points.forEach((point, joint) => {
    if (!point) return
    context.beginPath()
    if (dashed(joint)) {
      context.globalAlpha = alpha * 0.8
      context.lineWidth = Math.max(stick * 0.35, 0.5)
      context.strokeStyle = JOINT_STYLES[joint]
      context.arc(point.x, point.y, radius(joint) * 0.8, 0, 2 * Math.PI)
      context.stroke()
      context.globalAlpha = alpha
      return
    }
    context.fillStyle = JOINT_STYLES[joint]
    context.arc(point.x, point.y, radius(joint), 0, 2 * Math.PI)
    context.fill()
  })
  context.restore()
}
