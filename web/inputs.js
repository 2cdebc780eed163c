// Workflows of this pack whose Load Image names one of its pictures get that picture into ComfyUI's input folder when they are
// opened, as if it had been dropped there. Without this file such a workflow waits for a picture of one's own.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const PACK = new URL(import.meta.url).pathname.split("/").at(-2)   // the pack's folder, as the host names it
const OURS = /^pgpis_\w+\.png$/

// The file's name in the input folder: another one where somebody's own has that name. Null where it cannot be had.
async function brought(name) {
  const picture = await api.fetchApi(`/workflow_templates/${PACK}/inputs/${name}`)
  if (!picture.ok) return null
  const body = new FormData()
  body.append("image", new File([await picture.blob()], name, { type: "image/png" }))
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  return answer.ok ? (await answer.json()).name : null
}

app.registerExtension({
  name: "pgpis.inputs",
  async beforeConfigureGraph(graph) {
    for (const node of graph?.nodes ?? []) {
      if (node.type !== "LoadImage" || !OURS.test(node.widgets_values?.[0] ?? "")) continue
      node.widgets_values[0] = await brought(node.widgets_values[0]) ?? node.widgets_values[0]
    }
  },
  loadedGraphNode(node) {
    const widget = node.comfyClass === "LoadImage" && node.widgets?.find((one) => one.name === "image")
    const choices = widget?.options?.values
    if (widget && OURS.test(widget.value) && Array.isArray(choices) && !choices.includes(widget.value)) {
      choices.push(widget.value)
    }
  }
})
