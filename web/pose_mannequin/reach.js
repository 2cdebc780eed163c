// What dragging a joint does to the body: wrists and ankles reach by two bones, other joints turn what hangs on them.
// Limits are those of a body that does not hurt itself.
import { SIDES, add, cross, dot, length, posed, scaled, shoulder, times, transposed, turn, unit } from "./skeleton.js"

const DEGREE = Math.PI / 180
const FOLDED = { arms: 150 * DEGREE, legs: 152 * DEGREE }   // how far elbow and knee bend
const POLE = { arms: [0.3, -0.4, -1], legs: [0, 0, 1] }     // where elbow and knee point when the limb is straight
const THIGH = { flex: [-45, 140], side: [-35, 80] }         // degrees forwards and outwards
const REACH_BACK = -0.55                                    // of an upper arm that is not lifted: forward share
const HEAD = [[-80, 80], [-45, 45]], TORSO = [[-30, 100], [-40, 40], [-50, 50]]   // degrees: turn, nod; lean, tilt, twist
const clamp = (value, low, high) => Math.min(high, Math.max(low, value))

// A direction in the limb's own axes (outwards, up, forward) within what the joint at the trunk allows.
function allowed(name, upper) {
  const [out, up, ahead] = unit(upper)
  if (name === "legs") {
    const side = clamp(Math.asin(clamp(out, -1, 1)), THIGH.side[0] * DEGREE, THIGH.side[1] * DEGREE)
    let flex = Math.atan2(ahead, -up)
    if (flex < -120 * DEGREE) flex += 2 * Math.PI   // a thigh pulled over the head came from the front
    flex = clamp(flex, THIGH.flex[0] * DEGREE, THIGH.flex[1] * DEGREE)
    return [Math.sin(side), -Math.cos(side) * Math.cos(flex), Math.cos(side) * Math.sin(flex)]
  }
  return unit([Math.max(out, -0.75), up, Math.max(ahead, REACH_BACK - 0.35 * Math.max(0, -up))])
}

// The second bone, folded no further than its joint allows, a knee never forwards.
function folded(name, upper, lower) {
  const axis = cross(upper, lower), bend = Math.acos(clamp(dot(upper, lower), -1, 1))
  const most = name === "legs" && axis[0] < -1e-9 ? 0 : FOLDED[name]
  if (bend <= most) return lower
  const across = unit(add(lower, upper, -dot(lower, upper)))
  return unit(add(scaled(upper, Math.cos(most)), across, Math.sin(most)))
}

// Both bones of a limb that reach for a place `goal` from its root, in its own axes; lengths [a, b].
export function reach(name, goal, [a, b], current) {
  const far = clamp(length(goal), Math.sqrt(a * a + b * b + 2 * a * b * Math.cos(FOLDED[name])), (a + b) * 0.9999)
  const along = unit(goal), cosine = clamp((a * a + far * far - b * b) / (2 * a * far), -1, 1)
  const sine = Math.sqrt(1 - cosine * cosine)
  let pole = add(current.upper, along, -dot(current.upper, along))
  if (length(pole) < 0.05) pole = add(POLE[name], along, -dot(POLE[name], along))
  pole = unit(pole)
  const bones = (towards) => {
    const upper = add(scaled(along, cosine), towards, sine)
    return { upper, lower: unit(add(scaled(along, far), upper, -a)) }
  }
  let made = bones(pole)
  if (name === "legs" && cross(made.upper, made.lower)[0] < 0) made = bones(scaled(pole, -1))
  const upper = allowed(name, made.upper)
  const rest = unit(add(scaled(along, far), upper, -a))
  return { upper, lower: folded(name, upper, rest) }
}

// --- joints ----------------------------------------------------------------------------------------------------
const LIMBS = { 2: ["arms", 0], 5: ["arms", 1], 8: ["legs", 0], 11: ["legs", 1] }

function limbOf(joint) {
  const first = [2, 5, 8, 11].find((one) => joint >= one && joint < one + 3)
  return first === undefined ? null : { name: LIMBS[first][0], side: LIMBS[first][1], place: joint - first }
}

function moveLimb(state, body, { name, side, place }, goal) {
  const frame = transposed(name === "arms" ? body.chest : body.pelvis), first = (name === "arms" ? 2 : 8) + 3 * side
  const own = (vector) => {
    const [x, y, z] = times(frame, vector)
    return [SIDES[side] * x, y, z]
  }
  const limb = state[name][side]
  if (place === 1) {   // an elbow or a knee turns its limb as it is
    const upper = allowed(name, own(add(goal, body.joints[first], -1)))
    const lower = unit(times(turn(unit(limb.upper), upper), limb.lower))
    return { ...limb, upper, lower: folded(name, upper, lower) }
  }
  let made = limb
  for (let n = 0; n < 4; n++) {   // a lifted arm takes the shoulder along
    const root = name === "arms" ? shoulder(body, side, made.upper) : body.joints[first]
    made = { ...limb, ...reach(name, own(add(goal, root, -1)), body.lengths[name], limb) }
  }
  if (name === "legs") delete made.foot   // the sole follows the shank again
  return made
}

function moveHead(state, body, goal) {
  const [left, up, ahead] = times(transposed(body.chest), add(goal, body.neck, -1))
  const turned = Math.atan2(left, Math.max(ahead, 0.02)) / DEGREE
  const nod = (Math.atan2(0.098, 0.066) - Math.atan2(up, Math.hypot(left, ahead))) / DEGREE
  return [clamp(turned, ...HEAD[0]), clamp(nod, ...HEAD[1]), state.head[2]]
}

function moveTorso(state, body, joint, goal) {
  const [lean, tilt, twist] = state.torso, [left, up, ahead] = times(transposed(body.pelvis), goal)
  if (joint === 1) {
    return [clamp(Math.atan2(ahead, Math.hypot(left, up) * Math.sign(up || 1)) / DEGREE * 1.25, ...TORSO[0]),
      clamp(Math.atan2(left, Math.max(up, 0.05)) / DEGREE * 1.25, ...TORSO[1]), twist]
  }
  const sign = joint === 2 ? -1 : 1   // a shoulder turns the chest
  return [lean, tilt, clamp(-sign * Math.atan2(ahead, Math.max(sign * left, 0.02)) / DEGREE, ...TORSO[2])]
}

// The state after joint (0..17) was dragged to a place in space.
export function dragged(state, build, joint, goal) {
  const body = posed(state, build), limb = limbOf(joint)
  if (joint === 0 || joint > 13) return { ...state, head: moveHead(state, body, goal) }
  if (joint === 1 || joint === 2 || joint === 5) return { ...state, torso: moveTorso(state, body, joint, goal) }
  if (limb.place === 0) {   // the hips take the whole body along, in the picture
    const [, pitch, zoom] = state.camera, middle = add(goal, body.joints[joint], -1)
    const yaw = state.camera[0] * DEGREE, p = pitch * DEGREE
    const across = middle[0] * Math.cos(yaw) - middle[2] * Math.sin(yaw)
    const near = middle[0] * Math.sin(yaw) + middle[2] * Math.cos(yaw)
    const up = middle[1] * Math.cos(p) - near * Math.sin(p)
    const [x, y] = [state.camera[3] + across * zoom, state.camera[4] + up * zoom].map((one) => clamp(one, -2, 2))
    return { ...state, camera: [state.camera[0], pitch, zoom, x, y] }
  }
  const limbs = [...state[limb.name]]
  limbs[limb.side] = moveLimb(state, body, limb, goal)
  return { ...state, [limb.name]: limbs }
}

// Left and right exchanged, as the picture in a mirror.
export function mirrored(state) {
  const [turned, tip, roll] = state.root, [lean, tilt, twist] = state.torso, [look, nod, bent] = state.head
  const [yaw, pitch, zoom, x, y] = state.camera
  return { root: [-turned, tip, -roll], torso: [lean, -tilt, -twist], head: [-look, nod, -bent],
    arms: [...state.arms].reverse(), legs: [...state.legs].reverse(), camera: [-yaw, pitch, zoom, -x, y] }
}
