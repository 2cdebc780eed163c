// The body as shaded capsules on a 2D canvas, the farthest first, with a handle at each joint.
import { add, column, length, scaled, times, unit } from "./skeleton.js"

const GROUND = "#e4e4e7", CLAY = [205, 184, 166]
export const HANDLES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0]   // joints that can be dragged
const RIGHT = "#d9572b", LEFT = "#2b6fd9", MIDDLE = "#3c9a4b"
const colourOf = (joint) => [2, 3, 4, 8, 9, 10].includes(joint) ? RIGHT : [0, 1].includes(joint) ? MIDDLE : LEFT

const tone = (light) => `rgb(${CLAY.map((value) => Math.round(value * light)).join(",")})`

// What the body is made of: [from, to, radius there, radius here] in body heights.
function capsules(body) {
  const j = body.joints, parts = [], up = column(body.chest, 1), low = column(body.pelvis, 1)
  const middle = scaled(add(j[8], j[11]), 0.5), b = body.build
  const chest = add(j[1], up, -0.06), waist = scaled(add(middle, chest), 0.5)
  parts.push([add(j[8], low, 0.02), add(j[11], low, 0.02), 0.056, 0.056])
  for (const side of [-1, 1]) {   // the trunk is broad, so it has a left and a right half
    const [wide, slim] = [0.030 * b.shoulders, 0.022].map((one) => scaled(column(body.chest, 0), side * one))
    parts.push([add(middle, column(body.pelvis, 0), side * 0.030 * b.hips), add(waist, slim), 0.064, 0.052],
      [add(waist, slim), add(chest, wide), 0.052, 0.058], [add(chest, wide), add(j[1], wide), 0.058, 0.036])
  }
  parts.push([add(add(j[2], j[1], 0.3), j[2], -0.3), add(add(j[5], j[1], 0.3), j[5], -0.3), 0.042, 0.042])
  parts.push([j[1], add(body.neck, column(body.head, 1), 0.05), 0.032, 0.028])
  for (const first of [2, 5]) {
    const along = unit(add(j[first + 2], j[first + 1], -1))
    parts.push([j[first], j[first + 1], 0.033, 0.026], [j[first + 1], j[first + 2], 0.027, 0.017],
      [j[first + 2], add(j[first + 2], along, 0.065), 0.016, 0.012])
  }
  for (const [side, first] of [[0, 8], [1, 11]]) {
    const { along, up: rise } = body.toes[side], sole = add(j[first + 2], rise, -0.022)
    parts.push([j[first], j[first + 1], 0.054, 0.037], [j[first + 1], j[first + 2], 0.039, 0.022],
      [add(sole, along, -0.02), add(sole, along, 0.08), 0.025, 0.020])
  }
  return parts
}

function capsule(context, eye, [from, to, ra, rb]) {
  const [ax, ay] = eye.project(from), [bx, by] = eye.project(to), a = ra * eye.scale, b = rb * eye.scale
  const angle = Math.atan2(by - ay, bx - ax), far = Math.hypot(bx - ax, by - ay)
  const tilt = far > Math.abs(a - b) ? Math.acos((a - b) / far) : 0
  const wide = Math.max(a, b), nx = -Math.sin(angle), ny = Math.cos(angle), mx = (ax + bx) / 2, my = (ay + by) / 2
  const fill = context.createLinearGradient(mx - nx * wide, my - ny * wide, mx + nx * wide, my + ny * wide)
  // the light comes from the upper left, before the body
  for (const [at, side] of [[0, -0.95], [0.25, -0.5], [0.5, 0], [0.75, 0.5], [1, 0.95]]) {
    const light = (nx * side * -0.42 + ny * side * -0.52) + 0.744 * Math.sqrt(1 - side * side)
    fill.addColorStop(at, tone(0.66 + 0.38 * (0.5 + 0.5 * light) ** 2))
  }
  context.fillStyle = fill
  context.beginPath()
  if (far <= Math.abs(a - b)) context.arc(a > b ? ax : bx, a > b ? ay : by, wide, 0, 2 * Math.PI)
  else {
    context.arc(ax, ay, a, angle + tilt, angle - tilt + 2 * Math.PI)
    context.arc(bx, by, b, angle - tilt, angle + tilt)
  }
  context.fill()
}

function head(context, eye, body) {
  const place = ([left, up, ahead]) => add(body.neck, times(body.head, [left, up, ahead]), body.build.head)
  const [cx, cy] = eye.project(place([0, 0.132, -0.004])), [tx, ty] = eye.project(place([0, 0.212, -0.004]))
  const wide = 0.060 * body.build.head * eye.scale
  const tall = Math.max(wide, Math.hypot(tx - cx, ty - cy)), angle = Math.atan2(ty - cy, tx - cx)
  const light = context.createRadialGradient(cx - 0.35 * wide, cy - 0.4 * wide, 0.1 * wide, cx, cy, 1.35 * tall)
  light.addColorStop(0, tone(1.06))
  light.addColorStop(1, tone(0.70))
  context.fillStyle = light
  context.beginPath()
  context.ellipse(cx, cy, tall, wide, angle, 0, 2 * Math.PI)
  context.fill()
  const facing = (x, z) => times(eye.rotation, times(body.head, unit([x, 0, z])))[2]
  context.fillStyle = "#3a3230"
  for (const joint of [14, 15]) {
    if (facing(joint === 14 ? -0.42 : 0.42, 0.91) < 0.15) continue
    const [x, y] = eye.project(body.joints[joint])
    context.beginPath()
    context.arc(x, y, Math.max(1.2, 0.008 * eye.scale), 0, 2 * Math.PI)
    context.fill()
  }
  if (facing(0, 1) > -0.2) {
    const [x, y] = eye.project(body.joints[0])
    context.fillStyle = tone(0.93)
    context.beginPath()
    context.arc(x, y, 0.010 * eye.scale, 0, 2 * Math.PI)
    context.fill()
  }
}

// body, eye: of skeleton.js. hot: the joint under the pointer, or null.
export function draw(context, width, height, body, eye, hot, handles = true) {
  context.fillStyle = GROUND
  context.fillRect(0, 0, width, height)
  const near = (points) => points.reduce((sum, point) => sum + eye.project(point)[2], 0) / points.length
  const parts = capsules(body).map((part) => ({ depth: near(part.slice(0, 2)), paint: () => capsule(context, eye, part) }))
  const middle = add(body.neck, times(body.head, [0, 0.13, 0]), body.build.head)
  parts.push({ depth: near([middle]) + 0.02, paint: () => head(context, eye, body) })
  for (const part of parts.sort((a, b) => a.depth - b.depth)) part.paint()
  if (!handles) return
  for (const joint of [...HANDLES].sort((a, b) => eye.project(body.joints[a])[2] - eye.project(body.joints[b])[2])) {
    const [x, y] = eye.project(body.joints[joint])
    context.beginPath()
    context.arc(x, y, joint === hot ? 6 : 4, 0, 2 * Math.PI)
    context.fillStyle = colourOf(joint)
    context.globalAlpha = joint === hot ? 1 : 0.8
    context.fill()
    context.globalAlpha = 1
    context.lineWidth = 1
    context.strokeStyle = "#ffffff"
    context.stroke()
  }
}

// The handle nearest to a place on the canvas, none farther than `reach` pixels; of two as near the one before the other.
export function handleAt(body, eye, column, row, reach) {
  let best = null, cost = Infinity
  for (const joint of HANDLES) {
    const [x, y, depth] = eye.project(body.joints[joint]), away = length([x - column, y - row, 0])
    if (away <= reach && away - 8 * depth < cost) [best, cost] = [joint, away - 8 * depth]
  }
  return best
}
