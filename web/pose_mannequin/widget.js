// The canvas of a Pose Mannequin: drag a joint to move it, drag beside it to walk around, turn the wheel to zoom. What it
// makes is the text of the node's widget `state`; without this file the node works the same, posed by that text.
import { app } from "../../../scripts/app.js"
import { dragged, mirrored } from "./reach.js"
import { draw, handleAt } from "./drawing.js"
import { AVERAGE, posed, read, view, write } from "./skeleton.js"
import { gallery } from "../pose_library/gallery.js"

const NODE = "PGPISPoseMannequin"
const TALL = 420            // pixels of the canvas in the node, at least
const SLIDERS = ["stature", "shoulders", "hips", "arms", "legs"]
const STYLES = {
  all: "display:flex;flex-direction:column;gap:4px;width:100%;height:100%;min-height:0;box-sizing:border-box",
  bar: "display:flex;flex-wrap:wrap;gap:4px;flex:none",
  button: "font-size:11px;padding:1px 7px;border-radius:4px;border:1px solid #8886;background:#8883;color:inherit;" +
    "cursor:pointer",
  room: "flex:1;min-height:340px;position:relative;overflow:hidden",
  canvas: "position:absolute;inset:0;margin:auto;max-width:100%;max-height:100%;touch-action:none;border-radius:4px;" +
    "outline:none",
  said: "font-size:11px;flex:none;color:#d9572b"
}
const HINT = "Drag a joint, or beside it to walk around; wheel to zoom, shift and drag to move."

const widgetOf = (node, name) => node.widgets?.find((one) => one.name === name)
const valueOf = (node, name, usual) => {
  const value = Number(widgetOf(node, name)?.value)
  return Number.isFinite(value) && value > 0 ? value : usual
}

function buildOf(node) {
  const [stature, shoulders, hips, arms, legs] = SLIDERS.map((name) => valueOf(node, name, 1))
  return { ...AVERAGE, height: stature, shoulders, hips, upper_arm: arms, lower_arm: arms, thigh: legs, shank: legs }
}

class Mannequin {
  constructor(node) {
    this.node = node
    this.text = widgetOf(node, "state")
    this.hot = null
    this.element = document.createElement("div")
    this.element.className = "pgpis-mannequin"
    this.element.style.cssText = STYLES.all
    this.element.dataset.captureWheel = "true"   // the page zooms the graph otherwise, once the canvas was clicked
    const bar = document.createElement("div")
    bar.style.cssText = STYLES.bar
    for (const [label, title, act] of [
      ["poses", "Take a pose of the library", () => this.offer()],
      ["front", "Look at it from the front", () => this.look(0)], ["right", "Look at its right side", () => this.look(-90)],
      ["left", "Look at its left side", () => this.look(90)], ["back", "Look at its back", () => this.look(180)],
      ["fit", "Fill the picture", () => this.fit()],
      ["mirror", "Exchange left and right", () => this.put(mirrored(this.state))],
      ["undo", "Take the last change back", () => this.undo()],
      ["reset", "Stand at ease", () => this.put(read("").state)]]) {
      const button = document.createElement("button")
      button.textContent = label
      button.title = title
      button.style.cssText = STYLES.button
      button.addEventListener("click", act)
      bar.append(button)
    }
    const room = document.createElement("div")
    room.style.cssText = STYLES.room
    this.canvas = document.createElement("canvas")
    this.canvas.title = HINT
    this.canvas.tabIndex = 0
    this.canvas.style.cssText = STYLES.canvas
    this.said = document.createElement("div")
    this.said.style.cssText = STYLES.said
    room.append(this.canvas)
    this.element.append(bar, room, this.said)
    this.past = []
    for (const [kind, act] of [["pointerdown", (e) => this.down(e)], ["pointermove", (e) => this.move(e)],
      ["pointerup", (e) => this.up(e)], ["pointercancel", (e) => this.up(e)], ["pointerleave", () => this.leave()]]) {
      this.canvas.addEventListener(kind, act)
    }
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false })
    this.canvas.addEventListener("dblclick", (event) => event.stopPropagation())
    if (window.ResizeObserver) new ResizeObserver(() => this.show()).observe(room)
    this.room = room
  }

  get state() { return read(this.text.value).state }

  // Writes the state where the workflow keeps it. kept: whether undo can come back to what was there.
  put(state, kept = true) {
    if (kept) this.past = [...this.past.slice(-49), this.text.value]
    this.text.value = write(state)
    this.text.callback?.(this.text.value)
    this.show()
    app.graph?.setDirtyCanvas?.(true, true)
  }

  // Shows the library in place of the canvas, or the canvas again.
  offer() {
    if (!this.library) {
      this.library = gallery((pose) => {
        this.put(read(JSON.stringify(pose.state)).state)
        this.offer()
      }).element
      this.library.style.display = "none"
      this.room.after(this.library)
    }
    const open = this.library.style.display === "none"
    this.library.style.display = open ? "flex" : "none"
    this.room.style.display = open ? "none" : ""
    if (!open) this.show()
  }

  undo() {
    if (!this.past.length) return
    this.text.value = this.past.pop()
    this.text.callback?.(this.text.value)
    this.show()
  }

  look(yaw) {
    const state = this.state
    state.camera[0] = yaw
    this.put(state)
  }

  // Zoom and place so that joints, head and hands fill the picture, as camera.fitted does with the whole surface.
  fit() {
    const state = this.state, [width, height] = this.size
    state.camera.splice(2, 3, 1, 0, 0)
    const eye = view(state.camera, width, height), body = posed(state, buildOf(this.node))
    const reach = body.joints.map((_, n) => n > 13 || !n ? 0.11 : [4, 7, 10, 13].includes(n) ? 0.09 : 0.06)
    const at = body.joints.map((point) => eye.project(point))
    const low = [0, 1].map((axis) => Math.min(...at.map((point, n) => point[axis] - reach[n] * height)))
    const high = [0, 1].map((axis) => Math.max(...at.map((point, n) => point[axis] + reach[n] * height)))
    const zoom = Math.min(0.96 * height / (high[1] - low[1]), 0.96 * width / (high[0] - low[0]))
    state.camera[2] = zoom
    state.camera[3] = -zoom * ((low[0] + high[0]) / 2 - width / 2) / height
    state.camera[4] = zoom * ((low[1] + high[1]) / 2 - height / 2) / height
    this.put(state)
  }

  get size() { return [valueOf(this.node, "width", 352), valueOf(this.node, "height", 512)] }

  show() {
    const [width, height] = this.size, room = this.room
    const scale = Math.min((room.clientWidth || 300) / width, (room.clientHeight || TALL) / height)
    const wide = Math.max(32, width * scale), tall = Math.max(32, height * scale)
    const dots = Math.min(2, window.devicePixelRatio || 1)
    this.canvas.width = Math.round(wide * dots)
    this.canvas.height = Math.round(tall * dots)
    this.canvas.style.width = `${Math.round(wide)}px`
    this.canvas.style.height = `${Math.round(tall)}px`
    const { state, problem } = read(this.text.value), context = this.canvas.getContext("2d")
    context.setTransform(dots, 0, 0, dots, 0, 0)
    this.shown = [wide, tall]
    draw(context, wide, tall, posed(state, buildOf(this.node)), view(state.camera, wide, tall), this.hot)
    this.said.textContent = problem
    this.last = this.seen()
  }

  // What the drawing depends on; another value means that it is old.
  seen() { return [this.text.value, ...this.size, ...SLIDERS.map((name) => valueOf(this.node, name, 1))].join() }

  refresh() { if (this.last !== this.seen()) this.show() }

  place(event) {
    const box = this.canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width * this.shown[0], (event.clientY - box.top) / box.height * this.shown[1]]
  }

  // Where the handle of a joint lies on the page, in its pixels.
  handle(joint) {
    const box = this.canvas.getBoundingClientRect(), body = posed(this.state, buildOf(this.node))
    const [column, row] = this.eye(this.state).project(body.joints[joint]), [wide, tall] = this.shown
    return [box.left + column / wide * box.width, box.top + row / tall * box.height]
  }

  eye(state) { return view(state.camera, ...this.shown) }

  down(event) {
    if (event.button) return
    event.preventDefault()
    event.stopPropagation()
    this.canvas.focus({ preventScroll: true })
    this.canvas.setPointerCapture?.(event.pointerId)
    const state = this.state, build = buildOf(this.node), at = this.place(event), eye = this.eye(state)
    const body = posed(state, build), joint = handleAt(body, eye, ...at, 14)
    this.past = [...this.past.slice(-49), this.text.value]
    this.drag = { joint, start: at, state, build, depth: joint === null ? 0 : eye.project(body.joints[joint])[2] }
  }

  move(event) {
    if (!this.drag) {
      const state = this.state, hot = handleAt(posed(state, buildOf(this.node)), this.eye(state), ...this.place(event), 14)
      this.canvas.style.cursor = hot === null ? "grab" : "pointer"
      if (hot !== this.hot) {
        this.hot = hot
        this.show()
      }
      return
    }
    event.stopPropagation()
    const { joint, start, state, build, depth } = this.drag, at = this.place(event)
    const [dx, dy] = [at[0] - start[0], at[1] - start[1]]
    this.hot = joint
    if (joint !== null) return this.put(dragged(state, build, joint, this.eye(state).lift(...at, depth)), false)
    const [yaw, pitch, zoom, x, y] = state.camera, tall = this.shown[1]
    const turned = ((yaw - 0.6 * dx + 180) % 360 + 360) % 360 - 180
    const camera = event.shiftKey ? [yaw, pitch, zoom, x + dx / tall, y - dy / tall]
      : [turned, Math.min(89, Math.max(-89, pitch + 0.4 * dy)), zoom, x, y]
    this.put({ ...state, camera }, false)
  }

  up(event) {
    if (!this.drag) return
    event.stopPropagation()
    if (this.past.at(-1) === this.text.value) this.past.pop()   // nothing was moved
    this.drag = null
    app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.()
  }

  leave() {
    if (this.drag || this.hot === null) return
    this.hot = null
    this.show()
  }

  wheel(event) {
    event.preventDefault()
    event.stopPropagation()
    const state = this.state
    state.camera[2] = Math.min(20, Math.max(0.1, state.camera[2] * Math.exp(-0.0015 * event.deltaY)))
    this.put(state, false)
  }
}

function watch(node, mannequin) {
  for (const name of ["state", "width", "height", ...SLIDERS]) {
    const widget = widgetOf(node, name), before = widget?.callback
    if (!widget) continue
    widget.callback = function (...given) {
      const result = before?.apply(this, given)
      mannequin.refresh()
      return result
    }
  }
}

app.registerExtension({
  name: "pgpis.pose_mannequin",
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !widgetOf(node, "state") || !node.addDOMWidget) return
    const mannequin = new Mannequin(node)
    mannequin.text.hidden = true   // the canvas is easier to read
    if (mannequin.text.options) mannequin.text.options.hidden = true
    const widget = node.addDOMWidget("mannequin", "pgpis_mannequin", mannequin.element,
      { serialize: false, hideOnZoom: false, getMinHeight: () => TALL, getValue: () => "", setValue: () => {} })
    widget.serialize = false
    node.pgpisMannequin = mannequin
    watch(node, mannequin)
    const least = node.computeSize?.() ?? [0, 0]
    node.setSize?.([Math.max(node.size[0], 340), Math.max(node.size[1], least[1])])
    mannequin.show()
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) node.pgpisMannequin?.show()
  }
})
