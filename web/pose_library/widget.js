// The gallery in a Pose Library: a click on a thumbnail chooses its name, and a button uploads own poses. Without this file
// names are chosen from a list.
import { app } from "../../../scripts/app.js"
import { addUpload } from "../pose_upload.js"
import { gallery } from "./gallery.js"

const NODE = "PGPISPoseLibrary"
const OWN = /^(models\/pgpis\/poses|input)\//   // before the names of own files
const TALL = 280   // pixels of the gallery, at least

app.registerExtension({
  name: "pgpis.pose_library",
  nodeCreated(node) {
    const names = node.comfyClass === NODE && node.widgets?.find((one) => one.name === "name")
    if (!names || !node.addDOMWidget) return
    const shown = gallery((pose) => {
      names.value = pose.name
      names.callback?.(pose.name)
      app.graph?.setDirtyCanvas?.(true, true)
    }, () => names.value, () => (names.options?.values ?? []).filter((one) => OWN.test(one)))
    if (node.addWidget) {
      addUpload(node, { widget: "name", kinds: ".json", folder: "poses", label: "input/", done: () => shown.show() })
    }
    const widget = node.addDOMWidget("gallery", "pgpis_gallery", shown.element,
      { serialize: false, hideOnZoom: false, getMinHeight: () => TALL, getValue: () => "", setValue: () => {} })
    widget.serialize = false
    node.pgpisGallery = shown
    const least = node.computeSize?.() ?? [0, 0]
    node.setSize?.([Math.max(node.size[0], 340), Math.max(node.size[1], least[1])])
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) node.pgpisGallery?.show()
  }
})
