// How joints move: limb lengths held, arms and legs followed, left and right. Numbers only; {x, y, c, placed} is a joint: pixels,
// confidence, and whether it has a place at all. Functions give new arrays and change nothing.
import { CHILDREN, JOINTS, LIMBS, MIRROR, NECK, PARENT, standing } from "./skeleton.js"

export const LEAST_CONFIDENCE = 0.3   // joints below count as missing, here as in the nodes
export const shown = (joint) => joint.placed && joint.c >= LEAST_CONFIDENCE

const ENDS = new Set([4, 7, 10, 13])              // wrists and ankles: two limbs bend for them
const UPRIGHT = new Set([2, 5, 8, 11])            // shoulders and hips: what hangs on them keeps its directions
const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y)

/** The joint and all that hang on it. */
export function below(joint) {
  return [joint, ...CHILDREN[joint].flatMap(below)]
}

/** Where each joint is, or, without a place of its own, where it would be on this person: 18 of {x, y}. */
export function suggested(points, width, height) {
  const rest = standing(width, height).map(([x, y]) => ({ x, y }))
  const ratios = LIMBS.filter(([a, b]) => points[a].placed && points[b].placed)
    .map(([a, b]) => distance(points[a], points[b]) / distance(rest[a], rest[b])).sort((a, b) => a - b)
  const scale = ratios.length ? ratios[ratios.length >> 1] : 1
  const found = points.map(({ x, y, placed }) => placed ? { x, y } : null)
  if (!found[NECK]) {
    const [right, left] = [found[2], found[5]]
    const anchor = found.findIndex((one) => one)
    if (right && left) found[NECK] = { x: (right.x + left.x) / 2, y: (right.y + left.y) / 2 }
    else if (anchor >= 0) found[NECK] = offset(found[anchor], rest[anchor], rest[NECK], scale)
    else found[NECK] = rest[NECK]
  }
  for (const [from, to] of LIMBS) found[to] ??= offset(found[from], rest[from], rest[to], scale)
  return found
}

const offset = (place, from, to, scale) => ({ x: place.x + scale * (to.x - from.x), y: place.y + scale * (to.y - from.y) })

/**
 * The joints after one was dragged to (x, y). Lengths are held: wrists and ankles bend elbow or knee, within reach; other joints
 * turn about their parent and take along what hangs on them; the neck moves the whole person. stretch: only this joint moves.
 */
export function dragged(points, joint, x, y, stretch = false) {
  const made = points.map((one) => ({ ...one }))
  const parent = PARENT[joint]
  if (stretch || (parent >= 0 && !points[parent].placed)) {
    Object.assign(made[joint], { x, y, placed: true })
    return made
  }
  if (parent < 0) return shifted(points, x - points[joint].x, y - points[joint].y)
  const root = PARENT[parent]
  if (ENDS.has(joint) && points[root].placed && points[joint].placed) {
    const bent = twoLimbs(points[root], points[parent], points[joint], x, y)
    if (bent) {
      Object.assign(made[parent], bent.middle)
      Object.assign(made[joint], bent.end)
      return made
    }
  }
  const centre = points[parent], length = distance(points[joint], centre)
  if (!points[joint].placed || length === 0) {
    Object.assign(made[joint], { x, y, placed: true })
    return made
  }
  const away = Math.hypot(x - centre.x, y - centre.y)
  if (away === 0) return made
  const place = { x: centre.x + (x - centre.x) / away * length, y: centre.y + (y - centre.y) / away * length }
  if (UPRIGHT.has(joint)) return shifted(points, place.x - points[joint].x, place.y - points[joint].y, below(joint))
  const angle = Math.atan2(place.y - centre.y, place.x - centre.x)
    - Math.atan2(points[joint].y - centre.y, points[joint].x - centre.x)
  return turned(points, centre, angle, below(joint))
}

/** Elbow and wrist, or knee and ankle, for a wanted end: {middle, end}, the bend on the side where it is; null without limbs. */
function twoLimbs(root, middle, end, x, y) {
  const first = distance(root, middle), second = distance(middle, end)
  const away = Math.hypot(x - root.x, y - root.y)
  if (first === 0 || second === 0 || away === 0) return null
  const reach = Math.min(Math.max(away, Math.abs(first - second)), first + second)
  const towards = Math.atan2(y - root.y, x - root.x)
  const side = (middle.x - root.x) * (end.y - root.y) - (middle.y - root.y) * (end.x - root.x) < 0 ? 1 : -1
  const cosine = reach === 0 ? 0 : (first * first + reach * reach - second * second) / (2 * first * reach)
  const angle = towards + side * Math.acos(Math.min(1, Math.max(-1, cosine)))
  return {
    middle: { x: root.x + first * Math.cos(angle), y: root.y + first * Math.sin(angle) },
    end: { x: root.x + reach * Math.cos(towards), y: root.y + reach * Math.sin(towards) }
  }
}

/** Some joints, or all, moved by (dx, dy); joints without a place stay without. */
export function shifted(points, dx, dy, which = JOINTS.keys()) {
  const moved = new Set(which)
  return points.map((one, joint) => moved.has(joint) && one.placed ? { ...one, x: one.x + dx, y: one.y + dy } : { ...one })
}

/** Some joints, or all, turned about a point by an angle in radians, clockwise on the screen. */
export function turned(points, centre, angle, which = JOINTS.keys()) {
  const moved = new Set(which)
  return points.map((one, joint) => moved.has(joint) && one.placed ? { ...one, ...rotated(one, centre, angle) } : { ...one })
}

/** A place {x, y} turned about another, clockwise on the screen. */
export function rotated({ x, y }, centre, angle) {
  const cos = Math.cos(angle), sin = Math.sin(angle), dx = x - centre.x, dy = y - centre.y
  return { x: centre.x + cos * dx - sin * dy, y: centre.y + sin * dx + cos * dy }
}

/** x0, y0, x1, y1 of the joints that have a place; null without any. */
export function bounds(points) {
  const placed = points.filter((one) => one.placed)
  if (!placed.length) return null
  const xs = placed.map((one) => one.x), ys = placed.map((one) => one.y)
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]
}

/** The middle of the box around the joints that have a place. */
export function middle(points) {
  const box = bounds(points)
  return box ? { x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2 } : { x: 0, y: 0 }
}

/** The joints mirrored left to right about x = axis: left joints become right ones. */
export function mirrored(points, axis) {
  return MIRROR.map((other) => points[other].placed ? { ...points[other], x: 2 * axis - points[other].x }
    : { ...points[other] })
}

/**
 * Points that hang on a limb, such as those of a hand, after the joints moved from `before` to `after`: turned and moved with the
 * limb that ends in `joint`. points: list of {x, y, c, placed}.
 */
export function carried(points, before, after, joint) {
  const parent = PARENT[joint]
  const [a, b] = [before[joint], after[joint]]
  if (!a.placed || !b.placed) return points
  let angle = 0
  if (before[parent].placed && after[parent].placed) {
    angle = Math.atan2(b.y - after[parent].y, b.x - after[parent].x)
      - Math.atan2(a.y - before[parent].y, a.x - before[parent].x)
  }
  if (a.x === b.x && a.y === b.y && angle === 0) return points
  return points.map((one) => {
    if (!one.placed) return one
    const place = rotated(one, a, angle)
    return { ...one, x: place.x + b.x - a.x, y: place.y + b.y - a.y }
  })
}
