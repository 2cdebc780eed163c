// What somebody does with the Pose Editor: node 1 of the workflow; node 2 shows its picture, node 3 its pose.
const WRIST = 7, ANKLE = 10, KNEE = 12
const BUTTON = (name) => `.pgpis-pose-node [data-action=${name}]`

const editor = () => window.app.graph.getNodeById(1).widgets.find((widget) => widget.name === "pose_editor").editor
const text = () => window.app.graph.getNodeById(1).widgets.find((widget) => widget.name === "text").value

// Where a joint of the first person is on the screen, and where a place of the canvas is: in the node, or in the dialog.
function place([large, joint, at]) {
  const one = window.app.graph.getNodeById(1).widgets.find((widget) => widget.name === "pose_editor").editor
  const element = document.querySelector(large ? ".pgpis-pose-dialog .pgpis-pose-view" : ".pgpis-pose-node .pgpis-pose-view")
  const box = element.getBoundingClientRect(), { session } = one
  const fit = Math.min((element.clientWidth - 20) / session.width, (element.clientHeight - 20) / session.height)
  const grown = box.width / element.clientWidth
  const { x, y } = at ?? session.places(session.people[0])[joint]
  return { x: box.left + grown * ((element.clientWidth - fit * session.width) / 2 + fit * x),
           y: box.top + grown * ((element.clientHeight - fit * session.height) / 2 + fit * y) }
}

// The page has settled: the joint stays where it is, and nothing lies over it.
async function settle(page, large, joint) {
  for (let was = null, still = 0, i = 0; i < 60 && still < 5; i++) {
    const { x, y } = await page.evaluate(place, [large, joint])
    const free = await page.evaluate(([x, y]) => !!document.elementFromPoint(x, y)?.closest(".pgpis-pose-view"), [x, y])
    still = free && was && Math.hypot(x - was.x, y - was.y) < 0.5 ? still + 1 : 0
    was = { x, y }
    await page.waitForTimeout(300)
  }
}

async function drag(page, large, joint, at) {
  await settle(page, large, joint)
  const from = await page.evaluate(place, [large, joint]), to = await page.evaluate(place, [large, joint, at])
  await page.mouse.move(from.x, from.y)
  await page.mouse.down()
  await page.mouse.move((from.x + to.x) / 2, (from.y + to.y) / 2 + 15, { steps: 3 })
  await page.mouse.move(to.x, to.y, { steps: 3 })
  await page.mouse.up()
}

async function result() {
  const picture = window.app.graph.getNodeById(2).imgs?.[0]
  const bytes = picture ? new Uint8Array(await (await fetch(picture.src)).arrayBuffer()) : []
  return { picture: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")),
           said: window.poseSaid }
}

export default async function act(page, { load, execute }) {
  const seen = { texts: [] }
  const note = async () => seen.texts.push(await page.evaluate(text))
  await page.evaluate(() => {
    const { canvas } = window.app
    canvas.ds.scale = 1
    canvas.ds.offset = [0, 0]
    canvas.setDirty(true, true)
    window.app.api.addEventListener("executed", ({ detail }) => { if (detail.node === "3") window.poseSaid = detail.output.text })
  })
  await page.waitForTimeout(800)
  await note()
  await drag(page, false, WRIST, { x: 330, y: 250 })
  await note()
  await page.locator(BUTTON("mirror")).click()
  await note()
  const ankle = await page.evaluate(place, [false, ANKLE])
  await page.mouse.dblclick(ankle.x, ankle.y)
  await note()
  await page.keyboard.press("Control+z")
  await note()
  await page.keyboard.press("Control+y")
  await note()
  await page.locator(BUTTON("open")).click()
  await page.waitForTimeout(500)
  await drag(page, true, KNEE, { x: 380, y: 520 })
  await note()
  for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowRight")
  await page.keyboard.press("Shift+ArrowDown")
  await note()
  await page.locator(".pgpis-pose-done").click()
  seen.dialogs = await page.locator(".pgpis-pose-dialog").count()
  seen.saved = await page.evaluate(() => window.app.graph.serialize())
  await page.evaluate(() => { window.app.graph.clear() })
  await load(JSON.parse(JSON.stringify(seen.saved)))
  seen.nodes = await page.locator(".pgpis-pose-node").count()
  await note()
  seen.shown = await page.evaluate(`(${editor})().session.text`)
  Object.assign(seen, await execute())
  await page.waitForTimeout(1000)
  Object.assign(seen, await page.evaluate(result))
  return seen
}
