// A canvas that shows a session's current frame and turns what the mouse and the keys do into edits.
import { JOINTS, LIMBS, drawSkeleton, stickWidth } from "./skeleton.js"
import { shown } from "./posing.js"

const REACH = 11, TOUCH_REACH = 20, LIMB_REACH = 6   // pixels of the screen from a joint or a limb
const MARGIN = 10
const ZOOMS = [0.2, 40]
const GROWTH = 1.7                                   // of a joint under the pointer
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

export class View {
  /** wheel: "always" zooms, "focused" does so once the view was clicked. passed: (event) => void, for what is not for the view. */
  constructor(session, { wheel = "always", passed = () => {}, close = () => {} } = {}) {
    Object.assign(this, { session, wheel, passed, close, zoom: 1, pan: { x: 0, y: 0 }, hover: null, grip: null, dim: 0.55,
                          picture: null, growth: new Map(), asked: false })
    this.element = document.createElement("div")
    this.element.className = "pgpis-pose-view"
    this.canvas = this.element.appendChild(document.createElement("canvas"))
    // Keys go to a text area, since ComfyUI leaves those pressed in one alone: its own undo, its own copy.
    this.keys = this.element.appendChild(document.createElement("textarea"))
    Object.assign(this.keys, { className: "pgpis-pose-keys", readOnly: true, tabIndex: 0 })
    this.keys.setAttribute("aria-label", "Pose editor: arrows move, H hides, Tab takes the next joint")
    this.label = this.element.appendChild(document.createElement("div"))
    this.label.className = "pgpis-pose-label"
    this.notice = this.element.appendChild(document.createElement("div"))
    this.notice.className = "pgpis-pose-notice"
    this.listen()
    this.unsubscribe = session.subscribe(() => this.redraw())
    this.observer = new ResizeObserver(() => this.redraw())
    this.observer.observe(this.element)
  }

  remove() {
    this.unsubscribe()
    this.observer.disconnect()
    this.element.remove()
  }

  // --- places ------------------------------------------------------------------------------------------------

  /** Canvas pixels of the pose to pixels of the element: x * scale + left, y * scale + top. */
  get placement() {
    const { clientWidth: width, clientHeight: height } = this.element, { session } = this
    const fit = Math.max(Math.min((width - 2 * MARGIN) / session.width, (height - 2 * MARGIN) / session.height), 1e-3)
    const scale = fit * this.zoom
    return { scale, left: (width - scale * session.width) / 2 + this.pan.x, top: (height - scale * session.height) / 2 + this.pan.y }
  }

  /** Where an event is, in pixels of the element, whatever the graph's zoom. */
  at(event) {
    const box = this.element.getBoundingClientRect()
    return { x: (event.clientX - box.left) * this.element.clientWidth / (box.width || 1),
             y: (event.clientY - box.top) * this.element.clientHeight / (box.height || 1) }
  }

  inPose({ x, y }) {
    const { scale, left, top } = this.placement
    return { x: (x - left) / scale, y: (y - top) / scale }
  }

  reset() {
    this.zoom = 1
    this.pan = { x: 0, y: 0 }
    this.redraw()
  }

  zoomAt({ x, y }, factor) {
    const before = this.inPose({ x, y })
    this.zoom = Math.min(Math.max(this.zoom * factor, ZOOMS[0]), ZOOMS[1])
    const { scale, left, top } = this.placement
    this.pan.x += x - (before.x * scale + left)
    this.pan.y += y - (before.y * scale + top)
    this.redraw()
  }

  /** What lies under a place of the element: {person, joint}, joint -1 for a limb; null for nothing. The selected person first. */
  hit(place, reach = REACH) {
    const { scale, left, top } = this.placement, { people, person: chosen } = this.session
    let best = null
    const offer = (person, joint, distance) => {
      const rank = distance + (person === chosen ? 0 : 2) + (joint < 0 ? reach : 0)
      if (!best || rank < best.rank) best = { person, joint, rank }
    }
    people.forEach((one, person) => {
      const places = this.session.places(one).map(({ x, y }) => ({ x: x * scale + left, y: y * scale + top }))
      places.forEach((joint, index) => {
        if (person !== chosen && !shown(one.points[index])) return
        const distance = Math.hypot(joint.x - place.x, joint.y - place.y)
        if (distance <= reach) offer(person, index, distance)
      })
      LIMBS.forEach(([from, to]) => {
        if (!shown(one.points[from]) || !shown(one.points[to])) return
        const distance = toSegment(place, places[from], places[to])
        if (distance <= LIMB_REACH) offer(person, -1, distance)
      })
    })
    return best
  }

  // --- mouse and keys ----------------------------------------------------------------------------------------

  listen() {
    const { element, keys } = this
    element.addEventListener("pointerdown", (event) => this.press(event))
    element.addEventListener("pointermove", (event) => this.moveTo(event))
    for (const kind of ["pointerup", "pointercancel"]) element.addEventListener(kind, (event) => this.release(event))
    element.addEventListener("pointerleave", () => { this.setHover(null) })
    element.addEventListener("dblclick", (event) => {
      event.stopPropagation()
      const found = this.hit(this.at(event))
      if (!found || found.joint < 0) return
      this.session.select(found.person, found.joint)
      this.session.toggle(found.joint)
    })
    element.addEventListener("contextmenu", (event) => { event.preventDefault(); event.stopPropagation() })
    element.addEventListener("wheel", (event) => {
      if (this.wheel === "focused" && document.activeElement !== keys) return this.passed(event)
      event.preventDefault()
      event.stopPropagation()
      this.zoomAt(this.at(event), Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015)))
    }, { passive: false })
    keys.addEventListener("keydown", (event) => this.key(event))
    keys.addEventListener("keyup", (event) => event.stopPropagation())
    for (const kind of ["focus", "blur"]) keys.addEventListener(kind, () => this.redraw())
  }

  press(event) {
    if (event.button === 1 && this.wheel === "focused") return this.passed(event)
    event.stopPropagation()
    event.preventDefault()
    this.keys.focus({ preventScroll: true })
    const place = this.at(event)
    const found = event.button === 0 ? this.hit(place, event.pointerType === "touch" ? TOUCH_REACH : REACH) : null
    this.element.setPointerCapture?.(event.pointerId)
    if (found) {
      this.grip = { kind: "pose", start: place }
      const { x, y } = this.inPose(place)
      this.session.startDrag(found.person, found.joint, x, y)
    } else {
      this.grip = { kind: "pan", start: place, pan: { ...this.pan } }
      if (this.session.joint >= 0) this.session.select(this.session.person)
    }
    this.redraw()
  }

  moveTo(event) {
    const place = this.at(event), { grip } = this
    if (!grip) return this.setHover(this.hit(place))
    event.stopPropagation()
    const dx = place.x - grip.start.x, dy = place.y - grip.start.y
    grip.moved ||= Math.hypot(dx, dy) > 2   // a click moves nothing
    if (!grip.moved) return
    if (grip.kind === "pan") {
      this.pan = { x: grip.pan.x + dx, y: grip.pan.y + dy }
      this.redraw()
    } else {
      const { x, y } = this.inPose(place)
      this.session.dragTo(x, y, event.shiftKey)
    }
  }

  release(event) {
    if (!this.grip) return
    event.stopPropagation()
    if (this.grip.kind === "pose") this.session.endDrag()
    this.grip = null
    this.setHover(this.hit(this.at(event)))
  }

  setHover(found) {
    const now = found && { person: found.person, joint: found.joint }
    if (now?.person === this.hover?.person && now?.joint === this.hover?.joint) return
    this.hover = now
    this.redraw()
  }

  key(event) {
    event.stopPropagation()
    const { session } = this, command = event.ctrlKey || event.metaKey, name = event.key.toLowerCase()
    const arrow = ARROWS[event.key], step = event.shiftKey ? 10 : 1
    const commands = { z: () => event.shiftKey ? session.redo() : session.undo(), y: () => session.redo(),
                       c: () => session.copy(), v: () => session.paste(), d: () => session.addFrame() }
    const keys = { h: () => session.toggle(), m: () => session.mirror(), n: () => session.addPerson(), 0: () => this.reset(),
                   delete: () => session.removePerson(), "+": () => session.scale(1.02), "=": () => session.scale(1.02),
                   "-": () => session.scale(1 / 1.02), "[": () => session.turn(-Math.PI / 90), "]": () => session.turn(Math.PI / 90),
                   pageup: () => session.goTo(session.frame - 1), pagedown: () => session.goTo(session.frame + 1),
                   escape: () => session.joint >= 0 ? session.select(session.person) : this.close(),
                   tab: () => this.next(event.shiftKey ? -1 : 1) }
    const action = arrow ? () => session.nudge(arrow[0] * step, arrow[1] * step, event.altKey)
      : command ? commands[name] : event.altKey ? null : keys[name]
    if (!action) return
    event.preventDefault()
    action()
  }

  next(step) {
    const { session } = this
    if (session.selected) session.select(session.person, (session.joint + step + JOINTS.length) % JOINTS.length)
  }

  // --- drawing -----------------------------------------------------------------------------------------------

  redraw() {
    if (this.asked) return
    this.asked = true
    requestAnimationFrame(() => {
      this.asked = false
      if (this.element.isConnected) this.draw()
    })
  }

  draw() {
    const { element, canvas, session } = this, { clientWidth: width, clientHeight: height } = element
    if (!width || !height) return
    const sharp = Math.min(Math.max((devicePixelRatio || 1) * element.getBoundingClientRect().width / width, 1), 3)
    const sides = [Math.round(width * sharp), Math.round(height * sharp)]
    if (canvas.width !== sides[0] || canvas.height !== sides[1]) [canvas.width, canvas.height] = sides
    const context = canvas.getContext("2d"), { scale, left, top } = this.placement
    context.setTransform(sharp, 0, 0, sharp, 0, 0)
    context.clearRect(0, 0, width, height)
    this.drawGround(context, left, top, scale)
    context.translate(left, top)
    context.scale(scale, scale)
    const order = session.people.map((_, index) => index).sort((a, b) => (a === session.person) - (b === session.person))
    for (const index of order) this.drawPerson(context, index, scale)
    this.say()
    if (this.grow()) this.redraw()
  }

  drawGround(context, left, top, scale) {
    const { session } = this, w = session.width * scale, h = session.height * scale
    context.fillStyle = "#000"
    context.fillRect(left, top, w, h)
    const { picture } = this
    if (picture?.naturalWidth) {
      const fit = Math.min(w / picture.naturalWidth, h / picture.naturalHeight)
      const [pw, ph] = [picture.naturalWidth * fit, picture.naturalHeight * fit]
      context.globalAlpha = 1 - this.dim
      context.drawImage(picture, left + (w - pw) / 2, top + (h - ph) / 2, pw, ph)
      context.globalAlpha = 1
    }
    context.strokeStyle = "rgb(255 255 255 / 0.18)"
    context.lineWidth = 1
    context.strokeRect(left - 0.5, top - 0.5, w + 1, h + 1)
  }

  drawPerson(context, index, scale) {
    const { session } = this, person = session.people[index], chosen = index === session.person
    const places = session.places(person)
    const stick = Math.max(stickWidth(session.width, session.height), 2.2 / scale)
    const big = (joint) => 1 + (GROWTH - 1) * (this.growth.get(`${index} ${joint}`) ?? 0)
    const points = places.map((place, joint) => chosen || shown(person.points[joint]) ? place : null)
    drawSkeleton(context, points, stick, {
      alpha: session.problem ? 0.3 : chosen ? 1 : 0.5, radius: (joint) => Math.max(stick, 3.6 / scale) * big(joint),
      dashed: (joint) => !shown(person.points[joint])
    })
    for (const key of Object.keys(person.hanging)) {
      context.fillStyle = key.startsWith("face") ? "rgb(255 255 255 / 0.7)" : "rgb(120 170 255 / 0.8)"
      for (const point of person.hanging[key]) {
        if (!shown(point)) continue
        context.beginPath()
        context.arc(point.x, point.y, stick * 0.35, 0, 2 * Math.PI)
        context.fill()
      }
    }
    if (!chosen) return
    context.lineWidth = 1.6 / scale
    context.strokeStyle = "#fff"
    for (const joint of places.keys()) {
      const near = this.hover?.person === index && this.hover.joint === joint
      if (!near && session.joint !== joint) continue
      context.beginPath()
      context.arc(places[joint].x, places[joint].y, Math.max(stick, 3.6 / scale) * big(joint) + 2.4 / scale, 0, 2 * Math.PI)
      context.stroke()
    }
  }

  /** Joints grow to their size under the pointer, and shrink again; whether there is more to come. */
  grow() {
    const wanted = this.session.drag ? { person: this.session.person, joint: this.session.joint } : this.hover
    const key = wanted && wanted.joint >= 0 ? `${wanted.person} ${wanted.joint}` : null
    if (key && !this.growth.has(key)) this.growth.set(key, 0)
    let moving = false
    for (const [name, value] of this.growth) {
      const goal = name === key ? 1 : 0, next = Math.abs(goal - value) < 0.08 ? goal : value + (goal - value) * 0.35
      if (next !== value) moving = true
      if (next === 0) this.growth.delete(name)
      else this.growth.set(name, next)
    }
    this.element.style.cursor = this.grip?.kind === "pan" ? "grabbing" : this.session.drag ? "grabbing"
      : this.hover ? (this.hover.joint >= 0 ? "grab" : "move") : ""
    return moving
  }

  /** The words in the corner: which joint, and where; what is wrong with the text. */
  say() {
    const { session } = this, one = session.drag ? { person: session.person, joint: session.joint }
      : this.hover ?? { person: session.person, joint: session.joint }
    const person = session.people[one.person]
    let said = ""
    if (person && one.joint >= 0) {
      const { x, y } = session.places(person)[one.joint]
      said = `${JOINTS[one.joint]}  ${x.toFixed(0)}, ${y.toFixed(0)}${shown(person.points[one.joint]) ? "" : "  hidden"}`
    } else if (this.hover) said = "the whole person"
    if (session.people.length > 1 && said) said = `person ${one.person + 1}: ${said}`
    this.label.textContent = said
    this.label.hidden = !said
    const notice = session.problem ? `Nothing is drawn here of this text: ${session.problem}. The node may still read it: run it `
      + "once and take its pose, or start anew." : ""
    if (this.notice.textContent !== notice) this.notice.textContent = notice
    this.notice.hidden = !notice
  }
}

function toSegment({ x, y }, a, b) {
  const dx = b.x - a.x, dy = b.y - a.y
  const share = Math.min(Math.max(((x - a.x) * dx + (y - a.y) * dy) / (dx * dx + dy * dy || 1), 0), 1)
  return Math.hypot(x - a.x - share * dx, y - a.y - share * dy)
}
