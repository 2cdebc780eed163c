// Load Pose gets a button that puts a pose file into the host's input folder. Without this file the node works the same.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const NODE = "PGPISLoadPose"
const KINDS = ".json,.txt,.csv,.npy"

async function upload(node, file) {
  const body = new FormData()
  body.append("image", file)   // the host's one route for files of the input folder, whatever they hold
  body.append("type", "input")
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.statusText}`)
  const { name, subfolder } = await answer.json()
  const path = subfolder ? `${subfolder}/${name}` : name
  const widget = node.widgets.find((one) => one.name === "file")
  const values = widget.options?.values
  if (Array.isArray(values) && !values.includes(path)) values.push(path)
  widget.value = path
  widget.callback?.(path)
  app.canvas?.setDirty(true, true)
}

function choose(node) {
  const input = document.createElement("input")
  input.type = "file"
  input.accept = KINDS
  input.onchange = async () => {
    if (!input.files.length) return
    try {
      await upload(node, input.files[0])
    } catch (error) {
      const said = `The pose file ${input.files[0].name} was not uploaded: ${error.message}`
      if (app.extensionManager?.toast) app.extensionManager.toast.add({ severity: "error", summary: "Load Pose", detail: said })
      else alert(said)
    }
  }
  input.click()
}

app.registerExtension({
  name: "pgpis.pose_upload",
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.widgets?.some((widget) => widget.name === "file")) return
    const button = node.addWidget("button", "choose a pose file to upload", null, () => choose(node), { serialize: false })
    button.serialize = false   // a saved workflow holds the values of the schema's widgets alone
  }
})
