// The body's joints and its camera, as pgpis_models/body has them (skeleton.py, camera.py, state.py): what leaves the node
// is drawn there, this only shows it. No page is needed here, so that a test holds both together.

const SHOULDER_HEIGHT = 0.240, SHOULDER_WIDTH = 0.096, NECK_HEIGHT = 0.268
const UPPER_ARM = 0.160, LOWER_ARM = 0.140, THIGH = 0.245, SHANK = 0.235, HIP_WIDTH = 0.050, SOLE = 0.85
const EYE_HEIGHT = 0.120, EYE_ANGLE = 24.5, EAR_HEIGHT = 0.114, HEAD_WIDTH = 0.054, HEAD_DEPTH = 0.058
const RINGS = [-0.078, -0.070, -0.055, -0.035, -0.010, 0.015, 0.040, 0.065, 0.090, 0.115, 0.140, 0.165, 0.185, 0.205, 0.225]
const STANDING = {
  root: [0, 0, 0], torso: [0, 0, 0], head: [0, 0, 0],
  arms: [0, 1].map(() => ({ upper: [0.2171, -0.9759, 0.0218], lower: [0.1872, -0.9452, 0.2674] })),
  legs: [0, 1].map(() => ({ upper: [0.06, -0.9982, 0], lower: [0.036, -0.9992, -0.02], foot: -1 })),
  camera: [0, 5, 0.86, 0, 0]
}
export const SIDES = [-1, 1]   // right, left

// --- vectors and rotations: columns of a frame are its own axes ------------------------------------------------
export const add = (a, b, k = 1) => [a[0] + k * b[0], a[1] + k * b[1], a[2] + k * b[2]]
export const scaled = (a, k) => [a[0] * k, a[1] * k, a[2] * k]
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
export const length = (a) => Math.hypot(...a)
export const unit = (a) => scaled(a, 1 / (length(a) || 1))
export const times = (m, v) => m.map((row) => dot(row, v))
export const column = (m, n) => [m[0][n], m[1][n], m[2][n]]
export const transposed = (m) => [0, 1, 2].map((n) => column(m, n))
export const product = (a, b) => {
  const columns = transposed(b)
  return a.map((row) => columns.map((one) => dot(row, one)))
}
const radians = (degrees) => degrees * Math.PI / 180
export const aboutLeft = (a) => [[1, 0, 0], [0, Math.cos(a), -Math.sin(a)], [0, Math.sin(a), Math.cos(a)]]
export const aboutUp = (a) => [[Math.cos(a), 0, Math.sin(a)], [0, 1, 0], [-Math.sin(a), 0, Math.cos(a)]]
export const aboutForward = (a) => [[Math.cos(a), Math.sin(a), 0], [-Math.sin(a), Math.cos(a), 0], [0, 0, 1]]

// The smallest rotation that takes the unit vector a to b.
export function turn(a, b) {
  const [x, y, z] = cross(a, b), k = [[0, -z, y], [z, 0, -x], [-y, x, 0]], kk = product(k, k)
  const scale = 1 / Math.max(1e-6, 1 + dot(a, b))
  return k.map((row, i) => row.map((value, j) => (i === j ? 1 : 0) + value + kk[i][j] * scale))
}

// --- the state's text ------------------------------------------------------------------------------------------
const numbers = (given, count) => Array.isArray(given) && given.length === count && given.every(Number.isFinite)
const direction = (given, usual) => numbers(given, 3) && length(given) > 1e-6 ? unit(given) : [...usual]

function limb(given, usual) {
  const made = { upper: direction(given?.upper, usual.upper), lower: direction(given?.lower, usual.lower) }
  const foot = given && "foot" in given ? given.foot : given?.lower ? null : usual.foot
  if (Number.isFinite(foot)) made.foot = foot
  return made
}

// Text -> state; what cannot be read is that of a body that stands, and `problem` says so.
export function read(text) {
  let found = {}, problem = ""
  try {
    found = text?.trim() ? JSON.parse(text) : {}
    if (!found || typeof found !== "object" || Array.isArray(found)) throw new Error("no object")
  } catch (error) {
    problem = `This text is no mannequin (${error.message}).`
    found = {}
  }
  const state = { camera: numbers(found.camera, 5) ? [...found.camera] : [...STANDING.camera] }
  for (const name of ["root", "torso", "head"]) state[name] = numbers(found[name], 3) ? [...found[name]] : [0, 0, 0]
  for (const name of ["arms", "legs"]) state[name] = STANDING[name].map((usual, side) => limb(found[name]?.[side], usual))
  return { state, problem }
}

const rounded = (values, digits) => values.map((value) => +value.toFixed(digits) + 0)

export function write(state) {
  const bones = ({ upper, lower, foot }) =>
    ({ upper: rounded(upper, 4), lower: rounded(lower, 4), ...(Number.isFinite(foot) ? { foot: +foot.toFixed(1) } : {}) })
  const [yaw, pitch, ...place] = state.camera
  return JSON.stringify({
    root: rounded(state.root, 1), torso: rounded(state.torso, 1), head: rounded(state.head, 1),
    arms: state.arms.map(bones), legs: state.legs.map(bones), camera: [...rounded([yaw, pitch], 1), ...rounded(place, 4)]
  })
}

// --- forward kinematics ----------------------------------------------------------------------------------------
function spine(pelvis, torso, h) {
  const [lean, tilt, twist] = torso.map(radians)
  const frames = RINGS.map((at, n) => {
    let share = Math.min(1, Math.max(0, (at - 0.01) / 0.20))
    share = n >= 14 ? 1 : share * share * (3 - 2 * share)
    return product(product(product(pelvis, aboutUp(share * twist)), aboutForward(share * tilt)), aboutLeft(share * lean))
  })
  let centre = scaled(column(pelvis, 1), RINGS[0] * h)
  for (let n = 1; n < RINGS.length; n++) {
    const up = scaled(add(column(frames[n], 1), column(frames[n - 1], 1)), 0.5)
    centre = add(centre, up, (RINGS[n] - RINGS[n - 1]) * h)
  }
  return { chest: frames[14], top: centre }
}

// Factors of build and limbs, all 1 for the average body.
export const AVERAGE = { height: 1, shoulders: 1, hips: 1, head: 1, upper_arm: 1, lower_arm: 1, thigh: 1, shank: 1 }

// Where the shoulder is for a direction of the upper arm in the chest (outwards, up, forward).
export function shoulder(body, side, upper) {
  const raised = (0.5 + 0.5 * Math.max(-1, upper[1])) ** 1.3
  const place = [SIDES[side] * (SHOULDER_WIDTH * body.build.shoulders - 0.016 * raised), 0.034 * raised, -0.004]
  return add(body.root, times(body.chest, place))
}

// State and build -> pelvis, chest, head (3x3), neck, joints [18][3] in OpenPose order, toes, bones' lengths.
export function posed(state, build = AVERAGE) {
  const h = build.height, [heading, tip, roll] = state.root.map(radians)
  const pelvis = product(product(aboutUp(heading), aboutLeft(tip)), aboutForward(roll))
  const { chest, top } = spine(pelvis, state.torso, h)
  const onSpine = (height) => add(top, column(chest, 1), (height - RINGS[14]) * h)
  const neck = onSpine(NECK_HEIGHT), [turned, nod, bent] = state.head.map(radians), up = column(chest, 1)
  const own = product(product(product(chest, aboutUp(turned)), aboutLeft(nod)), aboutForward(bent))
  const head = product(turn(up, unit(add(up, column(pelvis, 1)))), own)
  const body = { build, pelvis, chest, head, neck, root: onSpine(SHOULDER_HEIGHT), joints: [], toes: [], lengths: {
    arms: [UPPER_ARM * h * build.upper_arm, LOWER_ARM * h * build.lower_arm],
    legs: [THIGH * h * build.thigh, SHANK * h * build.shank] } }
  const onHead = (angle, height, out = 1) => {
    const a = radians(angle), place = [HEAD_WIDTH * Math.sin(a) * out, height, HEAD_DEPTH * Math.cos(a) * out]
    return add(neck, times(head, place), build.head)
  }
  const joints = body.joints
  joints[0] = onHead(0, 0.098, 1.15)
  joints[1] = onSpine(SHOULDER_HEIGHT + 0.008)
  SIDES.forEach((sign, side) => {
    const mirrored = ([x, y, z]) => [sign * x, y, z]
    for (const [name, frame, first, origin] of [
      ["arms", chest, 2, shoulder(body, side, state.arms[side].upper)],
      ["legs", pelvis, 8, times(pelvis, [sign * HIP_WIDTH * build.hips, 0, 0])]]) {
      const { upper, lower } = state[name][side], [a, b] = body.lengths[name], at = first + 3 * side
      joints[at] = origin
      joints[at + 1] = add(origin, times(frame, mirrored(upper)), a)
      joints[at + 2] = add(joints[at + 1], times(frame, mirrored(lower)), b)
    }
    const { lower, foot } = state.legs[side]
    const pitch = Number.isFinite(foot) ? radians(foot) : SOLE * Math.atan2(lower[2], -lower[1])
    const toes = unit([sign * 0.16, Math.sin(pitch), Math.cos(pitch)])
    body.toes[side] = { along: times(pelvis, toes), up: times(pelvis, [0, Math.cos(pitch), -Math.sin(pitch)]) }
    joints[14 + side] = onHead(sign * EYE_ANGLE, EYE_HEIGHT)
    joints[16 + side] = onHead(sign * 100, EAR_HEIGHT, 1.06)
  })
  return body
}

// --- the camera ------------------------------------------------------------------------------------------------
// project: point -> [column, row, depth] on a canvas of width x height; lift: back, at a depth.
export function view(camera, width, height) {
  const [yaw, pitch, zoom, x, y] = camera
  const rotation = product(aboutLeft(radians(pitch)), aboutUp(-radians(yaw))), back = transposed(rotation)
  const scale = zoom * height, left = (-0.5 * width / height - x) / zoom, top = (0.5 - y) / zoom
  return {
    rotation, scale,
    project: (point) => {
      const [across, up, near] = times(rotation, point)
      return [(across - left) * scale, (top - up) * scale, near]
    },
    lift: (col, row, near) => times(back, [col / scale + left, top - row / scale, near])
  }
}
