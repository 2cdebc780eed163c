// Pose Editor in ComfyUI's page: the node's widget, its text, its background and its input. Without this file the node has its
// text as a plain widget and works the same.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { openDialog } from "./dialog.js"
import { Session } from "./session.js"
import { addStyle } from "./style.js"
import { IN_NODE, toolbar } from "./toolbar.js"
import { View } from "./view.js"

const NODE = "PGPISPoseEditor"
const HEIGHT = 420, WIDTH = 340   // of the canvas and of a new node, in units of the graph

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

function attach(node) {
  const text = widgetOf(node, "text"), sides = ["width", "height"].map((name) => widgetOf(node, name))
  if (!text || typeof node.addDOMWidget !== "function") return
  addStyle()
  const size = () => ({ width: sides[0]?.value || 512, height: sides[1]?.value || 768 })
  const session = new Session({ size: size(), write: (value) => {
    writing = true
    text.value = value
    writing = false
    node.graph?.setDirtyCanvas?.(true, true)
  } })
  let writing = false, dialog = null
  let origin = null, source = null, sent = []   // URLs: of the node at the input, and of what is shown; files of the last run
  const picture = new Image()

  const element = document.createElement("div")
  element.className = "pgpis-pose pgpis-pose-node"
  const view = new View(session, { wheel: "focused", passed: passOn })
  view.picture = picture
  const editor = { session, view, open, showText: () => showText(node, text, text.hidden) }
  const bar = toolbar(IN_NODE, editor)
  element.append(bar.element, view.element)
  const widget = node.addDOMWidget("pose_editor", "PGPIS_POSE_EDITOR", element, {
    serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT, getValue: () => "", setValue: () => {}
  })
  widget.serialize = false   // the text is what is saved
  widget.editor = editor
  showText(node, text, false)

  function open() {
    if (dialog) return
    look()
    const title = node.title && node.title !== node.constructor?.title ? `Pose Editor: ${node.title}` : "Pose Editor"
    dialog = openDialog(session, { picture, title, closed: () => { dialog = null } })
  }

  /** Reads what others may have changed: the text, the sides, the picture at the input. */
  function look() {
    const { width, height } = size()
    const brought = session.fresh && picture.naturalWidth   // a picture brings its own canvas as long as nothing is edited
    if (!brought && (session.size.width !== width || session.size.height !== height)) session.resize(width, height, false)
    session.read(text.value ?? "")
    const url = pictureUrl(node)
    if (url !== origin) {   // a picture that a run sent stays until another one is chosen
      origin = url
      sent = []
      show(url)
    } else if (!linked(node, "image")) show(null)
  }

  function show(url) {
    if (url === source) return
    source = url
    if (url) picture.src = url
    else picture.removeAttribute("src")
    view.redraw()
  }

  const ofFrame = () => { if (sent.length) show(fileUrl(sent[Math.min(session.frame, sent.length - 1)])) }
  session.subscribe(ofFrame)
  picture.addEventListener("load", () => {
    if (session.fresh && !session.input) session.resize(picture.naturalWidth, picture.naturalHeight, false)
    view.redraw()
    dialog?.redraw()
  })

  after(text, "callback", () => { if (!writing) session.read(text.value ?? "") })
  for (const side of sides) if (side) after(side, "callback", () => session.resize(size().width, size().height, true))
  after(node, "onConfigure", look)
  after(node, "onConnectionsChange", () => setTimeout(look))
  after(node, "onExecuted", (output) => {
    const [pose] = output?.pgpis_pose ?? []
    sent = output?.pgpis_background ?? []
    if (pose && (linked(node, "pose") || session.problem)) session.receive(pose)
    ofFrame()
  })
  after(node, "onRemoved", () => {
    dialog?.close()
    view.remove()
    bar.remove()
  })
  element.addEventListener("pointerenter", look)
  element.addEventListener("pointerdown", (event) => { if (event.button !== 1) event.stopPropagation() })
  setTimeout(look)
}

/** Shows the node's text as a plain widget, or the canvas alone. */
function showText(node, text, visible) {
  text.hidden = !visible
  if (text.options) text.options.hidden = !visible
  const needed = node.computeSize?.()
  if (needed) node.setSize?.([Math.max(node.size[0], WIDTH), Math.max(needed[1], node.size[1])])
  app.canvas?.setDirty(true, true)
}

/** Calls another function behind one that an object has. */
function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then(...given)
    return result
  }
}

/** What the canvas leaves alone is for the graph: the wheel, the middle button. */
function passOn(event) {
  const canvas = app.canvas
  if (event.type === "wheel") canvas?.processMouseWheel?.(event)
  else if (event.type === "pointerdown") canvas?.processMouseDown?.(event)
}

// --- the picture behind the pose ------------------------------------------------------------------------------

const linked = (node, name) => node.inputs?.find((input) => input.name === name)?.link != null

function fileUrl({ filename, subfolder = "", type = "temp" }) {
  const query = new URLSearchParams({ filename, subfolder, type })
  return api.apiURL(`/view?${query}`)
}

/** The picture at the image input where the page can know it before a run: what its node shows, or the file that it names. */
function pictureUrl(node) {
  const slot = node.inputs?.findIndex((input) => input.name === "image") ?? -1
  const origin = slot >= 0 ? node.getInputNode?.(slot) : null
  if (!origin) return null
  const file = widgetOf(origin, "image")?.value
  if (origin.comfyClass === "LoadImage" && typeof file === "string" && file) {
    const [, path, type] = /^(.*?)(?:\s\[(input|output|temp)\])?$/.exec(file)
    const cut = path.lastIndexOf("/")
    return fileUrl({ filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type: type ?? "input" })
  }
  return origin.imgs?.[0]?.src || null
}

app.registerExtension({
  name: "pgpis.pose_editor",
  nodeCreated(node) {
    if (node.comfyClass === NODE) attach(node)
  }
})
