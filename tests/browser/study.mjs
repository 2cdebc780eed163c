// Fills in pages of a user study as a person would: keys, the mouse, undo, a reload in the middle, and saves the answers.
//
// node study.mjs JOB.json with {browser, playwright, report, folder, people: [{page: file URL, person, keys: [key per question],
// clicked: answer the first question with the mouse (the first choice), screenshot: path of the second question or null}]}
// The report: {errors, people: [{shown: [per question, its pictures as they stand, left to right], undone: [before, after], back: the
// number of the question after a reload, file: where the answers were saved}]}
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { chromium } = await import(pathToFileURL(join(job.playwright, 'index.mjs')).href)
const browser = await chromium.launch({ executablePath: job.browser, args: ['--no-sandbox'] })
const report = { errors: [], people: [] }

async function fillIn({ page: address, person, keys, clicked, screenshot }) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true })
  const page = await context.newPage()
  page.on('pageerror', error => report.errors.push(String(error)))
  page.on('requestfailed', request => report.errors.push(request.url()))
  const count = () => page.locator('#count').innerText()
  const begin = async () => {
    await page.goto(address)
    await page.locator('#person').fill(person)
    await page.keyboard.press('Enter')
    await page.waitForFunction(() => document.querySelector('#count').textContent !== '')
  }
  const pictures = () => page.evaluate(async () => {
    const images = [...document.querySelectorAll('main img')]
    await Promise.all(images.map(image => image.decode()))
    return images.map(image => [image.src.split('/').pop(), image.naturalWidth, image.getBoundingClientRect().height])
  })
  const answer = async (key, mouse) => {
    const before = await count()
    if (mouse) await page.locator('[data-answer]').first().click()
    else await page.keyboard.press(key)
    await page.waitForFunction(text => document.querySelector('#count').textContent !== text, before)
  }
  await begin()
  const shown = []
  for (const [n, key] of keys.entries()) {
    shown.push(await pictures())
    if (n === 1 && screenshot) await page.screenshot({ path: screenshot })
    await answer(key, clicked && n === 0)
  }
  const undone = [await count()]
  await page.keyboard.press('Backspace')
  undone.push(await count())
  await begin() // as after a closed page: the answers so far are there
  const back = await count()
  await answer(keys.at(-1))
  const download = page.waitForEvent('download')
  await page.locator('#save').click()
  const file = join(job.folder, (await download).suggestedFilename())
  await (await download).saveAs(file)
  await context.close()
  return { shown, undone, back, file }
}

for (const person of job.people) report.people.push(await fillIn(person))
await browser.close()
writeFileSync(job.report, JSON.stringify(report))
