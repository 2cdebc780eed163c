// Load Pose and Pose Library get a button that puts pose files into the host's input folder. Without this file they work the
// same.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const NODE = "PGPISLoadPose"
const KINDS = ".json,.txt,.csv,.npy"

async function upload(node, file, { widget: name, folder, label }) {
  const body = new FormData()
  body.append("image", file)   // the host's one route for files of the input folder, whatever they hold
  body.append("type", "input")
  if (folder) body.append("subfolder", folder)
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.statusText}`)
  const saved = await answer.json()
  const path = label + (saved.subfolder ? `${saved.subfolder}/${saved.name}` : saved.name)
  const widget = node.widgets.find((one) => one.name === name)
  const values = widget.options?.values
  if (Array.isArray(values) && !values.includes(path)) values.push(path)
  widget.value = path
  widget.callback?.(path)
  app.canvas?.setDirty(true, true)
}

function choose(node, given) {
  const input = document.createElement("input")
  input.type = "file"
  input.accept = given.kinds
  input.multiple = true
  input.onchange = async () => {
    for (const file of input.files) {
      try {
        await upload(node, file, given)
      } catch (error) {
        const said = `The pose file ${file.name} was not uploaded: ${error.message}`
        if (app.extensionManager?.toast) app.extensionManager.toast.add({ severity: "error", summary: node.title, detail: said })
        else alert(said)
      }
    }
    given.done?.()
  }
  input.click()
}

// given: {widget: the one that names the file, kinds: endings, folder: below input, label: what stands before names of input,
// done: called after the files}.
export function addUpload(node, given) {
  const button = node.addWidget("button", "choose a pose file to upload", null, () => choose(node, given), { serialize: false })
  button.serialize = false   // a saved workflow holds the values of the schema's widgets alone
}

app.registerExtension({
  name: "pgpis.pose_upload",
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.widgets?.some((widget) => widget.name === "file")) return
    addUpload(node, { widget: "file", kinds: KINDS, folder: "", label: "" })
  }
})
