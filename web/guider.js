// PGPIS Guider shows only the weights that its guidance mode uses. Without this file it shows all of them and works the same.
import { app } from "../../scripts/app.js"

const NODE = "PGPISGuider"

// Mode -> its weights. A mode that is not here, such as one of a method that was added, shows all.
const WEIGHTS = {
  "default": ["pose", "appearance", "source", "fusion"],
  "uc_down_full": ["pose", "appearance"],
  "uc_full": ["appearance"],
  "updown_full": ["appearance"],
  "down_full": ["appearance"],
  "uc_down_updown_cdown": ["pose", "biases", "prompt"],
  "uc_down_updown_full": ["pose", "biases", "appearance"],
  "uc_source_fusion": ["source", "fusion"]
}
const ALL = [...new Set(Object.values(WEIGHTS).flat())]

function showUsed(node) {
  const mode = node.widgets?.find((widget) => widget.name === "mode")?.value
  const used = WEIGHTS[mode] ?? ALL
  for (const widget of node.widgets ?? []) {
    if (!ALL.includes(widget.name)) continue
    const linked = node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null)
    const hidden = !used.includes(widget.name) && !linked   // a weight that something is connected to stays in sight
    widget.hidden = hidden
    if (widget.options) widget.options.hidden = hidden
  }
  const height = node.computeSize?.()[1]
  if (height) node.setSize?.([node.size[0], height])
  app.canvas?.setDirty(true, true)
}

app.registerExtension({
  name: "pgpis.guider",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    const mode = node.widgets?.find((widget) => widget.name === "mode")
    if (!mode) return
    const before = mode.callback
    mode.callback = function (...given) {
      const result = before?.apply(this, given)
      showUsed(node)
      return result
    }
    showUsed(node)
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) showUsed(node)
  }
})
