// What somebody does with an own pose in Pose Library: node 1 of the workflow; node 2 shows its pose.
const JOINTS = Array.from({ length: 18 }, (_, joint) => [20 + 3 * joint, 10 + 9 * joint, 1]).flat()
const FILE = { canvas_width: 100, canvas_height: 200, people: [{ pose_keypoints_2d: JOINTS }] }

export default async function act(page, { execute }) {
  await page.evaluate(() => {
    const hear = ({ detail }) => { if (detail.node === "2") window.librarySaid = detail.output.text }
    window.app.api.addEventListener("executed", hear)
  })
  const chosen = page.waitForEvent("filechooser")
  await page.evaluate(() => window.app.graph.getNodeById(1).widgets.find((one) => one.type === "button").callback())
  const buffer = Buffer.from(JSON.stringify(FILE))
  await (await chosen).setFiles([{ name: "own leap.json", mimeType: "application/json", buffer }])
  await page.waitForFunction(() => window.app.graph.getNodeById(1).widgets[0].value.startsWith("input/"))
  const name = await page.evaluate(() => window.app.graph.getNodeById(1).widgets[0].value)
  const gallery = (words) => page.evaluate(async (typed) => {
    const { element } = window.app.graph.getNodeById(1).pgpisGallery, search = element.querySelector("input")
    search.value = typed
    search.dispatchEvent(new Event("input"))
    await new Promise((done) => setTimeout(done, 200))
    return [...element.querySelectorAll("button")].map((one) => [one.title, one.style.borderColor !== "transparent"])
  }, words)
  const heights = await page.evaluate(() => {
    const pictures = window.app.graph.getNodeById(1).pgpisGallery.element.querySelectorAll("button span")
    return [...pictures].map((one) => [one.parentElement.offsetHeight, one.offsetHeight])
  })
  const listed = { leap: await gallery("leap"), own: await gallery("own") }
  const ran = await execute()
  return { name, heights, listed, ...ran, file: FILE, said: await page.evaluate(() => window.librarySaid),
           saved: await page.evaluate(() => window.app.graph.serialize().nodes.find((one) => one.id === 1).widgets_values) }
}
