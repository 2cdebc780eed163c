// What is being edited: frames, which of them and who is looked at, what was done, and everything that can be done. No page.
import { History } from "./history.js"
import { mirroredPerson, moved, newFrame, newPerson, peopleOf, readText, refitted, withPeople, withPoints, writeText } from
  "./frames.js"
import { bounds, dragged, middle, rotated, shown, suggested } from "./posing.js"

const shift = (dx, dy) => ({ x, y }) => ({ x: x + dx, y: y + dy })
let clipboard = null   // {person, frame, width, height}: of all editors of the page

export class Session {
  /** size: {width, height} of a new pose in pixels. write: called with the text whenever it changes by an edit. */
  constructor({ size = { width: 512, height: 768 }, write = () => {} } = {}) {
    Object.assign(this, { size, write, listeners: new Set(), frame: 0, person: 0, joint: -1, input: null, text: "" })
    this.begin()
  }

  /** Anew from the text; what it was is kept, so that undoing everything gives it back letter by letter. */
  begin() {
    const { frames, problem } = readText(this.text, this.size)
    const first = frames?.length ? frames : this.input ?? [newFrame(this.size.width, this.size.height)]
    this.drag = null
    this.history = new History({ frames: first, frame: 0, person: 0, text: this.text, problem })
    this.settle()
  }

  /** What is wrong with the text, which is then shown to nobody and changed by nothing but `clear` and `takeInput`. */
  get problem() { return this.history.state.problem ?? "" }
  /** Whether nobody edited anything: the text is empty. */
  get fresh() { return this.history.state.text === "" }

  // --- what is looked at -------------------------------------------------------------------------------------

  get frames() { return this.drag?.frames ?? this.history.state.frames }
  get current() { return this.frames[this.frame] }
  get people() { return peopleOf(this.current) }
  get selected() { return this.people[this.person] ?? null }
  get width() { return this.current.canvas_width }
  get height() { return this.current.canvas_height }

  /** Where all joints of a person are, or would be: 18 of {x, y}. */
  places(person) { return suggested(person.points, this.width, this.height) }

  changed() { for (const listener of this.listeners) listener(this) }
  subscribe(listener) {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  settle() {
    this.frame = Math.min(Math.max(this.frame, 0), this.frames.length - 1)
    this.person = Math.min(Math.max(this.person, 0), Math.max(this.people.length - 1, 0))
    this.changed()
  }

  goTo(frame) {
    this.endDrag()
    this.frame = frame
    this.settle()
  }

  select(person, joint = -1) {
    Object.assign(this, { person, joint })
    this.settle()
  }

  // --- text --------------------------------------------------------------------------------------------------

  /** A text that came from outside: a loaded workflow, or typed. That which this editor wrote itself changes nothing. */
  read(text) {
    if (text === this.text) return
    this.text = text
    this.begin()
  }

  commit(frames, kind = null, always = false) {
    if (this.problem && !always) return
    this.history.push({ frames, frame: this.frame, person: this.person }, kind)
    this.save()
  }

  save() {
    const { text, frames } = this.history.state
    this.text = text ?? writeText(frames)
    this.write(this.text)
    this.settle()
  }

  undo() { this.step(this.history.canUndo, () => this.history.undo()) }
  redo() { this.step(this.history.canRedo, () => this.history.redo()) }
  step(possible, move) {
    this.endDrag()
    if (!possible) return
    Object.assign(this, { frame: move().frame, person: this.history.state.person })
    this.save()
  }

  // --- the input, the canvas ---------------------------------------------------------------------------------

  /** Frames that the node was given when it ran; a pose that nobody edited shows them. */
  receive(text) {
    const { frames } = readText(text, this.size)
    this.input = frames?.length ? frames : null
    if (this.fresh || this.problem) this.begin()
    else this.changed()
  }

  takeInput() {
    if (!this.input) return
    this.frame = 0
    this.commit(this.input, null, true)
  }

  /** One standing person in place of everything. */
  clear() {
    this.frame = 0
    this.commit([newFrame(this.size.width, this.size.height)], null, true)
  }

  /** The sides of new poses; with `all` those of what is there too, people scaled to fit. */
  resize(width, height, all) {
    if (!(width >= 1 && height >= 1)) return
    this.size = { width, height }
    if (this.fresh || this.problem) this.begin()
    else if (all) this.commit(this.frames.map((frame) => refitted(frame, width, height)), "resize")
  }

  // --- one person --------------------------------------------------------------------------------------------

  /** The frames with the selected person, or another one, changed. */
  withPerson(person, index = this.person) {
    const people = [...this.people]
    people[index] = person
    return this.withCurrent(withPeople(this.current, people))
  }

  withCurrent(frame) {
    const frames = [...this.frames]
    frames[this.frame] = frame
    return frames
  }

  /** Joints that have no place get the one where they are shown. */
  placed(person, joint) {
    if (person.points[joint].placed) return person
    const points = [...person.points]
    points[joint] = { ...this.places(person)[joint], c: 1, placed: true }
    return { ...person, points }
  }

  /** Begins to drag a joint, or with -1 the whole person, from a place of the canvas. */
  startDrag(person, joint, x, y) {
    this.select(person, joint)
    if (this.problem || !this.selected) return
    const held = joint >= 0 ? this.placed(this.selected, joint) : this.selected
    const from = joint >= 0 ? held.points[joint] : { x, y }
    this.drag = { person: held, joint, dx: from.x - x, dy: from.y - y, x, y, frames: this.history.state.frames, moved: false }
  }

  dragTo(x, y, stretch = false) {
    const drag = this.drag
    if (!drag) return
    const { x: x0, y: y0, dx, dy, joint } = drag
    const person = joint < 0 ? moved(drag.person, shift(x - x0, y - y0))
      : withPoints(drag.person, dragged(drag.person.points, joint, x + dx, y + dy, stretch))
    drag.frames = this.withPerson(person)
    drag.moved = true
    this.changed()
  }

  endDrag() {
    const drag = this.drag
    this.drag = null
    if (drag?.moved) this.commit(drag.frames)
  }

  /** Hides a joint that is shown, or shows one that is hidden. */
  toggle(joint = this.joint) {
    if (!this.selected || joint < 0) return
    const hide = shown(this.selected.points[joint])
    const person = this.placed(this.selected, joint)
    const points = person.points.map((one, index) => index === joint ? { ...one, c: hide ? 0 : 1 } : one)
    this.joint = joint
    this.commit(this.withPerson({ ...person, points }))
  }

  /** All of the person by a function of places. */
  move(place, kind) {
    if (this.selected) this.commit(this.withPerson(moved(this.selected, place)), kind)
  }

  /** By pixels: the selected joint, or the whole person. */
  nudge(dx, dy, stretch = false) {
    if (!this.selected) return
    if (this.joint < 0) return this.move(shift(dx, dy), "nudge")
    const person = this.placed(this.selected, this.joint), { x, y } = person.points[this.joint]
    const points = dragged(person.points, this.joint, x + dx, y + dy, stretch)
    this.commit(this.withPerson(withPoints(person, points)), `nudge ${this.joint}`)
  }

  /** About the middle of the person's box: by a factor, and by an angle in radians, clockwise. */
  scale(factor) {
    const { x, y } = middle(this.selected?.points ?? [])
    this.move((place) => ({ x: x + (place.x - x) * factor, y: y + (place.y - y) * factor }), "scale")
  }

  turn(angle) {
    const centre = middle(this.selected?.points ?? [])
    this.move((place) => rotated(place, centre, angle), "turn")
  }

  /** Left to right about the middle of the person's own box; left joints become right ones. */
  mirror() {
    const box = this.selected && bounds(this.selected.points)
    if (box) this.commit(this.withPerson(mirroredPerson(this.selected, (box[0] + box[2]) / 2)))
  }

  // --- people and frames -------------------------------------------------------------------------------------

  addPerson(person = newPerson(this.width, this.height)) {
    const people = [...this.people, person]
    const frames = this.withCurrent(withPeople(this.current, people))
    Object.assign(this, { person: people.length - 1, joint: -1 })
    this.commit(frames)
  }

  removePerson() {
    if (!this.selected) return
    const frames = this.withCurrent(withPeople(this.current, this.people.filter((_, index) => index !== this.person)))
    Object.assign(this, { person: Math.max(this.person - 1, 0), joint: -1 })
    this.commit(frames)
  }

  copy() {
    if (this.selected) clipboard = { person: this.selected, index: this.person, frame: this.frame, session: this,
                                     width: this.width, height: this.height }
  }

  get canPaste() { return clipboard !== null }

  /** In the frame that it is of, a second person beside the first; in another frame the same person's pose there. */
  paste() {
    if (!clipboard) return
    const here = clipboard.session === this && clipboard.frame === this.frame
    const source = newFrame(clipboard.width, clipboard.height, [clipboard.person])
    const [person] = peopleOf(refitted(source, this.width, this.height))
    if (here) return this.addPerson(moved(person, shift(this.width / 16, 0)))
    if (clipboard.index >= this.people.length) return this.addPerson(person)
    this.person = clipboard.index
    this.commit(this.withPerson(person))
  }

  /** A copy of this frame behind it. */
  addFrame() {
    const frames = [...this.frames]
    frames.splice(this.frame + 1, 0, { ...this.current })
    this.frame += 1
    this.commit(frames)
  }

  removeFrame() {
    if (this.frames.length > 1) this.commit(this.frames.filter((_, index) => index !== this.frame))
  }
}
