// Runs the public HTTP cache test suite (its own origin, its own client)
// against `perigee serve edge`, with testdata/http/conformance.toml and with
// that file less the options it turns on. Prints every test by kind, passed
// and failed, and holds them against floors.json: exit 1 when a count is below
// its floor, when a required or optimal test fails that is no exception, and
// when an exception has come to pass. The suite's Surrogate-Control tests are
// left out: that field was never standardised, and RFC 9213 is in its place.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname)
const root = path.resolve(here, '../..')
const suite = path.resolve(process.argv[2])
const option = name => {
  const i = process.argv.indexOf(name)
  return i < 0 ? undefined : process.argv[i + 1]
}
const onlyID = option('--id')
const onlyRun = option('--run')

// The four options, which the run "defaults" leaves out.
const options = /^(heuristic|share_set_cookie|store_client_errors|early_hints)\s*=.*\n/gm

// A server that does not start, or a test that hangs, ends the run after this.
const startTimeout = 20_000
const runTimeout = 180_000

const kinds = ['required', 'optimal', 'check']
const floors = JSON.parse(readFileSync(path.join(here, 'floors.json'), 'utf8'))
const from = name => import(pathToFileURL(path.join(suite, 'node_modules', name)))

const children = []

function start (command, args, settings, ready) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...settings, stdio: ['ignore', 'pipe', 'pipe'] })
    children.push(child)
    let said = ''
    const listen = data => {
      said = (said + data).slice(-20_000)
      const m = ready.exec(said)
      if (m) resolve(m)
    }
    child.stdout.on('data', listen)
    child.stderr.on('data', listen)
    child.on('error', reject)
    child.on('exit', code => reject(new Error(`${command} ended with ${code}:\n${said}`)))
    setTimeout(() => reject(new Error(`${command} did not start:\n${said}`)), startTimeout).unref()
  })
}

async function stop (child) {
  if (child.exitCode !== null) return
  const gone = new Promise(resolve => child.on('exit', resolve))
  child.kill('SIGTERM')
  await gone
}

function freePort () {
  return new Promise((resolve, reject) => {
    const s = net.createServer()
    s.on('error', reject)
    s.listen(0, '127.0.0.1', () => {
      const { port } = s.address()
      s.close(() => resolve(port))
    })
  })
}

async function origin (dir) {
  const m = await start(process.execPath, [path.join(suite, 'node_modules/http-cache-tests/server/server.mjs')],
    { cwd: dir, env: { ...process.env, npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: path.join(dir, 'origin.pid') } },
    /Listening on http:.*:(\d+)\//)
  return Number(m[1])
}

async function edge (dir, run, originPort) {
  const port = await freePort()
  let text = readFileSync(path.join(root, 'testdata/http/conformance.toml'), 'utf8')
    .replace('127.0.0.1:8080', `127.0.0.1:${port}`).replace('localhost:8000', `localhost:${originPort}`)
    .replace('"state"', JSON.stringify(path.join(dir, 'state')))
  if (run === 'defaults') text = text.replace(options, '')
  const file = path.join(dir, 'perigee.toml')
  writeFileSync(file, text)
  await start(path.join(root, 'bin/perigee'), ['serve', 'edge', 'local', '--config', file], { cwd: dir }, /edge listens/)
  return port
}

// play runs tests and returns id → true or [error, message].
async function play (tests, base) {
  const { makeCacheTest, testResults } = await from('http-cache-tests/client/test.mjs')
  const config = await from('http-cache-tests/client/config.mjs')
  const { default: fetch } = await from('node-fetch/lib/index.mjs')
  config.setFetch(fetch)
  config.setBaseUrl(base)
  for (const id of Object.keys(testResults)) delete testResults[id]
  const fresh = structuredClone(tests) // a run writes into them
  const chunk = 100 // as many at once as the suite's own command
  for (let i = 0; i < fresh.length; i += chunk) {
    await Promise.all(fresh.slice(i, i + chunk).map(test => {
      test.dump = onlyID !== undefined
      return makeCacheTest(test)
    }))
  }
  return { ...testResults }
}

async function judge (suites, results) {
  const display = await from('http-cache-tests/lib/display.mjs')
  const out = {}
  for (const kind of kinds) out[kind] = { passed: [], failed: [] }
  for (const s of suites) {
    for (const test of s.tests) {
      if (!(test.id in results)) continue
      const symbol = display.determineTestResult(suites, test.id, results, onlyID === undefined)[2]
      const passed = symbol === '✅' || symbol === 'Y'
      const why = results[test.id] === true ? 'what it depends on failed' : String(results[test.id][1] ?? results[test.id][0])
      out[test.kind ?? 'required'][passed ? 'passed' : 'failed'].push({ id: test.id, why: symbol === '⚪️' ? `depends on ${test.depends_on.join(', ')}` : why })
    }
  }
  return out
}

// excuse is why a test may fail in a run; undefined when it may not.
function excuse (run, kind, id) {
  if (id in floors.exceptions) return floors.exceptions[id]
  if (run !== 'defaults') return undefined
  return kind === 'optimal' ? 'needs an option' : floors.needs_option[id]
}

// surprises are tests that fail without excuse, and exceptions that pass.
function surprises (run, verdict) {
  const list = []
  for (const kind of ['required', 'optimal']) {
    for (const { id } of verdict[kind].failed) {
      if (excuse(run, kind, id) === undefined) list.push(`${id} failed and is no exception`)
    }
    for (const { id } of verdict[kind].passed) {
      if (id in floors.exceptions) list.push(`${id} passed: it is no exception any more`)
    }
  }
  return list
}

function below (run, verdict) {
  return kinds.filter(kind => verdict[kind].passed.length < floors[run][kind])
}

function print (run, verdict) {
  for (const kind of kinds) {
    const { passed, failed } = verdict[kind]
    console.log(`\n${run}: ${kind}: ${passed.length} of ${passed.length + failed.length} ${kind === 'check' ? 'yes' : 'passed'} (floor ${floors[run][kind]})`)
    let line = ' '
    for (const { id } of passed) {
      if (line.length + id.length > 118) {
        console.log(line)
        line = ' '
      }
      line += ' ' + id
    }
    if (passed.length) console.log(line)
    for (const { id, why } of failed) {
      const excused = kind === 'check' ? undefined : excuse(run, kind, id)
      console.log(`  ${kind === 'check' ? 'no ' : 'failed'} ${id}: ${why}${excused ? ` [exception: ${excused}]` : ''}`)
    }
  }
}

async function main () {
  const { default: suites } = await from('http-cache-tests/tests/index.mjs')
  const tests = suites.flatMap(s => s.tests).filter(t => t.browser_only !== true && (onlyID === undefined || t.id === onlyID))
  if (tests.length === 0) throw new Error(`the suite has no test ${onlyID}`)
  const known = new Set(suites.flatMap(s => s.tests).map(t => t.id))
  for (const id of Object.keys({ ...floors.exceptions, ...floors.needs_option })) {
    if (!known.has(id)) throw new Error(`floors.json: the suite has no test ${id}`)
  }
  const dir = mkdtempSync(path.join(os.tmpdir(), 'conformance-http-'))
  let ok = true
  try {
    const originPort = await origin(dir)
    for (const run of ['defaults', 'conformance']) {
      if (onlyRun !== undefined && run !== onlyRun) continue
      const base = `http://127.0.0.1:${await edge(dir, run, originPort)}`
      let results = await play(tests, base)
      let verdict = await judge(suites, results)
      if (onlyID === undefined && (below(run, verdict).length > 0 || surprises(run, verdict).length > 0)) {
        // The suite counts in seconds of a machine that may be busy: what
        // failed is asked once more, and said so.
        const failed = tests.filter(t => results[t.id] !== true)
        const second = await play(failed, base)
        const cured = failed.filter(t => second[t.id] === true).map(t => t.id)
        if (cured.length) console.log(`${run}: passed only at the second try: ${cured.join(' ')}`)
        results = { ...results, ...second }
        verdict = await judge(suites, results)
      }
      print(run, verdict)
      await stop(children.pop())
      if (onlyID !== undefined) continue
      for (const kind of below(run, verdict)) {
        ok = false
        console.log(`\n${run}: ${kind}: ${verdict[kind].passed.length} is below the floor of ${floors[run][kind]}`)
      }
      for (const surprise of surprises(run, verdict)) {
        ok = false
        console.log(`\n${run}: ${surprise}`)
      }
      const sum = kinds.reduce((n, kind) => n + verdict[kind].passed.length, 0)
      console.log(`\n${run}: ${sum} of ${Object.keys(results).length} in all`)
      for (const kind of kinds) {
        if (verdict[kind].passed.length > floors[run][kind]) console.log(`\n${run}: ${kind}: the floor in floors.json may rise to ${verdict[kind].passed.length}`)
      }
    }
  } finally {
    for (const child of children) await stop(child)
    rmSync(dir, { recursive: true, force: true })
  }
  return ok
}

setTimeout(() => { console.error('conformance-http: took too long'); for (const c of children) c.kill(); process.exit(1) }, runTimeout).unref()
main().then(ok => process.exit(ok ? 0 : 1), err => {
  console.error(`conformance-http: ${err.message}`)
  process.exit(1)
})
