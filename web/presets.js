// Load Pose Transfer gets a button that opens the pages of what the chosen preset needs. Without this file, and in hosts whose
// schema carries no pages, the node works the same and its message names them.
import { app } from "../../scripts/app.js"

const NODE = "PGPISLoadPreset"
const STYLES = {
  dialog: "max-width:min(640px,90vw);padding:14px 18px;border-radius:8px;border:1px solid #8886;font:13px sans-serif;" +
    "background:var(--comfy-menu-bg,#222);color:var(--input-text,#ddd)",
  list: "margin:10px 0;padding-left:18px;line-height:1.4",
  row: "margin:8px 0",
  link: "color:#6aa9ff;overflow-wrap:anywhere",
  close: "padding:4px 14px;border-radius:4px;border:1px solid #8886;background:#8882;color:inherit;cursor:pointer"
}
const pages = {}   // preset -> [{ what, page, folder }]

function safe(page) {
  try {
    return ["http:", "https:"].includes(new URL(page).protocol)
  } catch {
    return false
  }
}

function element(tag, style, text) {
  const one = document.createElement(tag)
  one.style.cssText = style
  one.textContent = text
  return one
}

function list(preset, needs) {
  const dialog = element("dialog", STYLES.dialog, ""), rows = element("ul", STYLES.list, "")
  for (const { what, page, folder } of needs) {
    const row = element("li", STYLES.row, `${what}, into ${folder}: `), link = element("a", STYLES.link, page)
    link.href = page
    link.target = "_blank"
    link.rel = "noopener noreferrer"
    row.append(link)
    rows.append(row)
  }
  const close = element("button", STYLES.close, "Close")
  close.onclick = () => dialog.close()
  dialog.onclose = () => dialog.remove()
  dialog.append(element("b", "", `${preset} needs`), rows, close)
  for (const kind of ["keydown", "pointerdown"]) dialog.addEventListener(kind, (event) => event.stopPropagation())
  document.body.append(dialog)
  dialog.showModal()
}

function open(preset) {
  const needs = (pages[preset] ?? []).filter(({ page }) => safe(page))
  const places = [...new Set(needs.map(({ page }) => page))]
  if (places.length === 1) window.open(places[0], "_blank", "noopener,noreferrer")
  else if (places.length) list(preset, needs)
}

app.registerExtension({
  name: "pgpis.presets",
  beforeRegisterNodeDef(_, { name, input }) {
    if (name === NODE) Object.assign(pages, input?.required?.preset?.[1]?.pgpis_pages)
  },
  nodeCreated(node) {
    const preset = node.comfyClass === NODE && node.widgets?.find((widget) => widget.name === "preset")
    if (!preset || !Object.keys(pages).length) return
    const button = node.addWidget("button", "get its files", null, () => open(preset.value), { serialize: false })
    button.serialize = false   // a saved workflow holds the values of the schema's widgets alone
  }
})
