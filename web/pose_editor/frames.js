// POSE_KEYPOINT JSON to people and back. A frame stays the object that was read until somebody in it is changed, so that what
// this editor does not know of is kept, and so that a thousand frames cost nothing but the one that is looked at.
import { carried, mirrored, shown } from "./posing.js"
import { standing } from "./skeleton.js"

const NORMALISED_LIMIT = 2    // a frame whose coordinates all lie within is in shares of its canvas, as in the nodes
const BODY_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]   // place of joint i among 25
const MIDDLE_HIP = 8, RIGHT_HIP = 8, LEFT_HIP = 11
const DECIMALS = 1000         // thousandths of a pixel are written
const LARGEST_SIDE = 2 ** 14  // of a canvas that can be drawn
const BODY_KEYS = ["pose_keypoints_2d", "pose_keypoints"]   // OpenPose's own, of today and of 1.0
const OTHER_KEYS = ["person_id", "face_keypoints", "hand_left_keypoints", "hand_right_keypoints", "foot_keypoints"]

// Lists that hang on the body: the joint that they follow.
const HANGING = { face_keypoints_2d: 0, hand_right_keypoints_2d: 4, hand_left_keypoints_2d: 7 }
const RIGHT_FOOT = [22, 23, 24], LEFT_FOOT = [19, 20, 21], RIGHT_ANKLE = 10, LEFT_ANKLE = 13
const range = (from, to) => Array.from({ length: Math.abs(to - from) + 1 }, (_, i) => from + i * Math.sign(to - from))
// Point i of a mirrored face of 70 points is point FACE_MIRROR[i]: jaw, brows, nose, eyes, lips, pupils.
const FACE_MIRROR = [...range(16, 0), ...range(26, 17), ...range(27, 30), ...range(35, 31), 45, 44, 43, 42, 47, 46,
  39, 38, 37, 36, 41, 40, ...range(54, 48), ...range(59, 55), ...range(64, 60), ...range(67, 65), 69, 68]

// --- text ---------------------------------------------------------------------------------------------------

/**
 * Frames of a text: {frames, problem}. size: {width, height} for frames that do not say theirs. An empty text has no frames and
 * no problem; of a text that is not pose JSON `problem` says what is wrong, and `frames` is null.
 */
export function readText(text, size) {
  if (!text.trim()) return { frames: [], problem: "" }
  let content
  try {
    content = parseLoosely(text)
  } catch (error) {
    return { frames: null, problem: `the text is not JSON (${error.message})` }
  }
  const frames = Array.isArray(content) ? content : [content]
  const problem = frames.length ? frames.map(problemOf).find((one) => one) : "the list of frames is empty"
  if (problem) return { frames: null, problem }
  return { frames: frames.map((frame) => withCanvas(frame, size)), problem: "" }
}

/** JSON, with NaN and Infinity as Python writes them read as null. */
function parseLoosely(text) {
  try {
    return JSON.parse(text)
  } catch (error) {
    const repaired = text.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (found) => found[0] === '"' ? found : "null")
    if (repaired === text) throw error
    return JSON.parse(repaired)
  }
}

function problemOf(frame, index) {
  const where = `frame ${index + 1}`
  if (frame === null || typeof frame !== "object" || Array.isArray(frame)) return `${where} is no object with people`
  for (const side of ["canvas_width", "canvas_height"]) {
    if (frame[side] != null && !isSide(frame[side])) {
      return `${side} of ${where} is ${JSON.stringify(frame[side]).slice(0, 40)}; expected 1 to ${LARGEST_SIDE} pixels`
    }
  }
  if (frame.people == null && Array.isArray(frame.keypoints)) return ""
  if (frame.people === undefined) return `${where} has no people`
  if (frame.people !== null && !Array.isArray(frame.people)) return `people of ${where} is no list`
  for (const person of frame.people ?? []) {
    if (person === null || typeof person !== "object") return `a person of ${where} is no object`
    const keys = Object.keys(person), known = [...BODY_KEYS, ...OTHER_KEYS]
    if (keys.length && !keys.some((key) => known.some((one) => key.startsWith(one)))) {
      return `a person of ${where} has ${keys.slice(0, 4).join(", ")}, which are not known; expected ${BODY_KEYS[0]}`
    }
    const count = bodyOf(person)?.flat?.().length ?? 0
    if (![0, 54, 75].includes(count)) return `a person of ${where} has ${count} numbers; expected 54 (18 joints) or 75 (25)`
  }
  return ""
}

const bodyOf = (person) => BODY_KEYS.map((key) => person[key]).find((list) => list != null)
const isSide = (value) => typeof value === "number" && value >= 1 && value <= LARGEST_SIDE

/** A frame with its canvas; one of the form {width, height, keypoints: [[[x, y], ...]]} in the form of the others. */
function withCanvas(frame, { width, height }) {
  if (frame.people == null && Array.isArray(frame.keypoints)) {
    const people = frame.keypoints.map((joints) => ({
      pose_keypoints_2d: Array.from({ length: 18 }, (_, i) => joints?.[i]).flatMap(
        (joint) => Array.isArray(joint) && joint[0] != null && joint[1] != null ? [joint[0], joint[1], 1] : [0, 0, 0])
    }))
    frame = { people, canvas_width: frame.canvas_width ?? frame.width, canvas_height: frame.canvas_height ?? frame.height }
  }
  if (isSide(frame.canvas_width) && isSide(frame.canvas_height)) return frame
  return { ...frame, canvas_width: isSide(frame.canvas_width) ? frame.canvas_width : width,
           canvas_height: isSide(frame.canvas_height) ? frame.canvas_height : height }
}

const written = new WeakMap()   // frame -> its JSON

/** The frames as one text; those written before cost nothing. */
export function writeText(frames) {
  const parts = frames.map((frame) => {
    if (!written.has(frame)) written.set(frame, JSON.stringify(frame))
    return written.get(frame)
  })
  return `[${parts.join(",\n")}]`
}

// --- people -------------------------------------------------------------------------------------------------

const read = new WeakMap()   // frame -> its people

/**
 * The people of a frame, each {raw, count, points: 18 of {x, y, c, placed}, hanging: key -> points, feet: 7 of 25 joints or null}
 * in pixels of its canvas.
 */
export function peopleOf(frame) {
  if (!read.has(frame)) read.set(frame, readPeople(frame))
  return read.get(frame)
}

function readPeople(frame) {
  const bodies = (frame.people ?? []).map((raw) => {
    const rows = triples(bodyOf(raw))
    const order = rows.length === 25 ? BODY_25 : range(0, 17)
    return { raw, rows, points: order.map((place) => pointOf(rows[place])) }
  })
  const seen = bodies.flatMap(({ points }) => points.filter(shown))
  const inShares = seen.length && seen.every(({ x, y }) => Math.max(Math.abs(x), Math.abs(y)) <= NORMALISED_LIMIT)
  const scale = inShares ? [frame.canvas_width, frame.canvas_height] : [1, 1]
  const inPixels = (point) => ({ ...point, x: point.x * scale[0], y: point.y * scale[1] })
  return bodies.map(({ raw, rows, points }) => {
    const hanging = {}
    for (const key of Object.keys(HANGING)) if (raw[key]?.length) hanging[key] = triples(raw[key]).map(pointOf).map(inPixels)
    return { raw, count: rows.length === 25 ? 25 : 18, points: points.map(inPixels), hanging,
             extra: rows.length === 25 ? rows.map(pointOf).map(inPixels) : null }
  })
}

function triples(list) {
  const flat = (list ?? []).flat()
  return Array.from({ length: Math.floor(flat.length / 3) }, (_, i) => flat.slice(3 * i, 3 * i + 3))
}

function pointOf(row) {
  const [x, y, c] = (row ?? [0, 0, 0]).map((value) => value === null ? NaN : Number(value))
  const confidence = Number.isFinite(c) ? Math.max(c, 0) : 0
  const placed = Number.isFinite(x) && Number.isFinite(y) && !(x === -1 && y === -1) && !(x === 0 && y === 0 && confidence === 0)
  return placed ? { x, y, c: confidence, placed } : { x: 0, y: 0, c: 0, placed }
}

/** A standing person in a canvas. */
export function newPerson(width, height) {
  const points = standing(width, height).map(([x, y]) => ({ x, y, c: 1, placed: true }))
  return { raw: {}, count: 18, points, hanging: {}, extra: null }
}

/** The person with other joints; hands, face and feet go along with the limbs that they hang on. */
export function withPoints(person, points) {
  const hanging = {}
  for (const [key, list] of Object.entries(person.hanging)) hanging[key] = carried(list, person.points, points, HANGING[key])
  let extra = person.extra
  if (extra) {
    const right = carried(extra, person.points, points, RIGHT_ANKLE), left = carried(extra, person.points, points, LEFT_ANKLE)
    const hips = [RIGHT_HIP, LEFT_HIP].filter((hip) => person.points[hip].placed && points[hip].placed)
    const mean = (key) => hips.reduce((sum, hip) => sum + points[hip][key] - person.points[hip][key], 0) / (hips.length || 1)
    extra = extra.map((one, place) => RIGHT_FOOT.includes(place) ? right[place] : LEFT_FOOT.includes(place) ? left[place]
      : place === MIDDLE_HIP && one.placed ? { ...one, x: one.x + mean("x"), y: one.y + mean("y") } : one)
  }
  return { ...person, points, hanging, extra }
}

/** The person with all that has a place moved by a function of {x, y}. */
export function moved(person, place) {
  const all = (list) => list.map((point) => point.placed ? { ...point, ...place(point) } : point)
  return { ...person, points: all(person.points), extra: person.extra && all(person.extra),
           hanging: Object.fromEntries(Object.entries(person.hanging).map(([key, list]) => [key, all(list)])) }
}

/** The person mirrored about x = axis, left and right swapped in hands, face and feet too. */
export function mirroredPerson(person, axis) {
  const flip = (list, order) => order.map((place) => list[place].placed ? { ...list[place], x: 2 * axis - list[place].x }
    : { ...list[place] })
  const same = (list) => list.map((_, place) => place)
  const { face_keypoints_2d: face, hand_left_keypoints_2d: left, hand_right_keypoints_2d: right } = person.hanging
  const hanging = {}
  if (face) hanging.face_keypoints_2d = flip(face, face.length === FACE_MIRROR.length ? FACE_MIRROR : same(face))
  if (right) hanging.hand_left_keypoints_2d = flip(right, same(right))
  if (left) hanging.hand_right_keypoints_2d = flip(left, same(left))
  const extra = person.extra && flip(person.extra, [...range(0, 18), ...RIGHT_FOOT, ...LEFT_FOOT])
  return { ...person, points: mirrored(person.points, axis), hanging, extra }
}

/**
 * The frame with other people; those that are the same objects as before keep their JSON where its unit is pixels. The body
 * that a frame of Pose Mannequin remembers goes: it is no longer that of the people.
 */
export function withPeople(frame, people) {
  const made = { ...frame, people: people.map(rawOf) }
  delete made.pgpis_mannequin
  read.set(made, people)
  return made
}

const round = (value) => Math.round(value * DECIMALS) / DECIMALS
const flatten = (points) => points.flatMap(({ x, y, c, placed }) => placed ? [round(x), round(y), c] : [0, 0, 0])

function rawOf(person) {
  let body = person.points
  if (person.extra) {
    body = [...person.extra]
    BODY_25.forEach((place, joint) => { body[place] = person.points[joint] })
  }
  const raw = { ...person.raw, pose_keypoints_2d: flatten(body) }
  for (const key of Object.keys(HANGING)) {
    if (person.hanging[key]) raw[key] = flatten(person.hanging[key])
    else if (raw[key]?.length) delete raw[key]   // of a mirrored person, whose hand is now the other one
  }
  return raw
}

/** A frame without people, or with a standing one. */
export function newFrame(width, height, people = [newPerson(width, height)]) {
  return withPeople({ people: [], canvas_width: width, canvas_height: height }, people)
}

/** The frame on a canvas of other sides: people scaled to fit, their aspect ratio kept, in the middle. */
export function refitted(frame, width, height) {
  if (frame.canvas_width === width && frame.canvas_height === height) return frame
  const scale = Math.min(width / frame.canvas_width, height / frame.canvas_height)
  const dx = (width - scale * frame.canvas_width) / 2, dy = (height - scale * frame.canvas_height) / 2
  const people = peopleOf(frame).map((person) => moved(person, ({ x, y }) => ({ x: scale * x + dx, y: scale * y + dy })))
  return withPeople({ ...frame, canvas_width: width, canvas_height: height }, people)
}

