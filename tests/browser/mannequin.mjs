// Poses a mannequin in ComfyUI's own frontend and writes down what the node holds.
//
// node mannequin.mjs JOB.json with {url, browser, playwright, report, vue}; vue: the new node view.
// The report: {before, handle, moved, turned, picked, undone, hidden, saved, again, errors}: texts of the widget `state`.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { chromium } = await import(pathToFileURL(join(job.playwright, 'index.mjs')).href)
const SETTINGS = {
  'Comfy.TutorialCompleted': true, 'Comfy.Workflow.Persist': false, 'Comfy.Minimap.Visible': false,
  'Comfy.Release.Status': 'skipped', 'Comfy.Graph.CanvasInfo': false, 'Comfy.VueNodes.Enabled': job.vue,
}
const PATIENCE = 300000
const WRIST = 4

async function settings(route) {
  if (route.request().method() !== 'GET') return route.fulfill({ status: 200, body: '' })
  const answer = await route.fetch()
  return route.fulfill({ json: { ...await answer.json(), ...SETTINGS } })
}

const browser = await chromium.launch({ executablePath: job.browser, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
const report = { errors: [] }
try {
  const context = await browser.newContext({ viewport: { width: 1300, height: 1000 } })
  await context.route(url => url.hostname !== new URL(job.url).hostname, route => route.abort())
  await context.route(url => /^\/(api\/)?settings(\/|$)/.test(url.pathname), settings)
  const page = await context.newPage()
  page.setDefaultTimeout(PATIENCE)
  page.on('pageerror', error => report.errors.push(error.message))
  await page.goto(job.url)
  await page.waitForFunction(() => window.app?.vueAppReady === true && !!window.LiteGraph?.registered_node_types.KSampler)
  await page.evaluate(() => {
    const { app, LiteGraph } = window
    app.graph.clear()
    const node = LiteGraph.createNode('PGPISPoseMannequin')
    node.pos = [100, 80]
    app.graph.add(node)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [150, 60]
    app.canvas.draw(true, true)
  })
  const canvas = page.locator('.pgpis-mannequin canvas')
  await page.waitForFunction(() => document.querySelector('.pgpis-mannequin canvas')?.getBoundingClientRect().height > 100)
  await page.waitForFunction(joint => { // the page has settled: the wrist stays where it is, and nothing lies over it
    const one = window.app.graph._nodes[0].pgpisMannequin, [x, y] = one?.handle(joint) ?? [NaN, NaN]
    const [before, above] = window.wristWas ?? [NaN, NaN]
    window.wristWas = [x, y]
    const still = Math.hypot(x - before, y - above) < 0.5 && document.elementFromPoint(x, y)?.closest('.pgpis-mannequin')
    window.stillFor = still ? (window.stillFor ?? 0) + 1 : 0
    return window.stillFor > 4
  }, WRIST, { polling: 500 })
  const text = () => page.evaluate(() => window.app.graph._nodes[0].widgets.find(one => one.name === 'state').value)
  const place = joint => page.evaluate(number => window.app.graph._nodes[0].pgpisMannequin.handle(number), joint)
  report.before = await text()
  const [x, y] = await place(WRIST)
  await page.mouse.move(x, y)
  await page.mouse.down()
  await page.mouse.move(x - 20, y - 60, { steps: 4 })
  await page.mouse.move(x - 15, y - 120, { steps: 6 })
  await page.mouse.up()
  report.handle = { asked: [x - 15, y - 120], found: await place(WRIST) }
  report.moved = await text()
  const box = await canvas.boundingBox()
  await page.mouse.move(box.x + box.width * 0.95, box.y + box.height * 0.95)
  await page.mouse.down()
  await page.mouse.move(box.x + box.width * 0.55, box.y + box.height * 0.95, { steps: 4 })
  await page.mouse.up()
  await page.mouse.wheel(0, 120)
  await page.waitForTimeout(300)
  report.turned = await text()
  report.hidden = await page.evaluate(() => window.app.graph._nodes[0].widgets.find(one => one.name === 'state').hidden)
  report.saved = await page.evaluate(() => window.app.graph.serialize())
  await page.evaluate(saved => window.app.loadGraphData(saved, true, true, 'again'), report.saved)
  await page.waitForTimeout(800)
  report.again = (await page.evaluate(() => window.app.graphToPrompt())).output
  await page.locator('.pgpis-mannequin button', { hasText: /^poses$/ }).click()
  await page.locator('.pgpis-gallery input').fill('handst')
  await page.locator('.pgpis-gallery button').first().click()
  report.picked = await text()
  await page.locator('.pgpis-mannequin button', { hasText: /^undo$/ }).click()
  report.undone = await text()
} finally {
  await browser.close()
}
writeFileSync(job.report, JSON.stringify(report))
