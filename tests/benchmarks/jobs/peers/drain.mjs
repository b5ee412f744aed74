// SPDX-License-Identifier: MIT
//
// How long the job queues of Node take for jobs that do nothing: drain.mjs <library> <jobs> <settings in JSON>. The jobs are
// there before; a first, smaller batch warms the library up. The clock starts with the first job, so that no start of a
// worker is counted, and stops when none is left. Prints "seconds <number>".

import pg from "pg";
import { setTimeout as sleep } from "node:timers/promises";

const [library, jobs, settings] = [process.argv[2], Number(process.argv[3]), JSON.parse(process.argv[4])];
const payload = { address: "ann@example.org" };
const db = new pg.Client();
await db.connect();

let ran, begun;
function count(jobs) {
    begun ??= process.hrtime.bigint();
    ran += jobs;
}

async function until(reached) {
    while (!(await reached())) await sleep(1);
}

// ---- graphile-worker: the bulk by its function in SQL, as its own measurements have it

async function graphile(name) {
    const { run, Logger, runMigrations } = await import(name);
    const preset = { worker: { ...settings, maxPoolSize: settings.concurrentJobs + 1, connectionString: "postgres://" } };
    const logger = new Logger(() => () => {});
    await runMigrations({ preset, logger });
    const table = "graphile_worker._private_jobs";
    return {
        table,
        left: `SELECT 1 FROM ${table} LIMIT 1`,
        async fill(jobs) {
            await db.query(
                `SELECT count(*) FROM (SELECT graphile_worker.add_jobs(array_agg(json_populate_record(
                 NULL::graphile_worker.job_spec, $2::json))) FROM generate_series(1, $1)) AS added`,
                [jobs, JSON.stringify({ identifier: "mail", payload })],
            );
        },
        async work() {
            const runner = await run({ preset, logger, noHandleSignals: true, taskList: { mail: async () => count(1) } });
            return () => runner.stop();
        },
    };
}

// ---- pg-boss: several workers that take batches, and need not wait between them

async function boss() {
    const { default: PgBoss } = await import("pg-boss");
    const boss = new PgBoss({ max: settings.workers + 2, supervise: false, schedule: false });
    boss.on("error", console.error);
    await boss.start();
    await boss.createQueue("mail");
    return {
        table: "pgboss.job",
        left: "SELECT 1 FROM pgboss.job WHERE state < 'completed' LIMIT 1",
        async fill(jobs) {
            for (let left = jobs; left > 0; left -= 5000)
                await boss.insert(Array(Math.min(left, 5000)).fill({ name: "mail", data: payload }));
        },
        async work() {
            for (let worker = 0; worker < settings.workers; ++worker) {
                const id = await boss.work("mail", { batchSize: settings.batchSize }, async (jobs) => {
                    count(jobs.length);
                    boss.notifyWorker(id);
                });
            }
            return () => boss.offWork("mail");
        },
    };
}

const subject = await (library === "pg-boss" ? boss() : graphile(library));

async function drain(jobs) {
    await db.query(`TRUNCATE ${subject.table}`);
    await subject.fill(jobs);
    await db.query(`VACUUM ANALYZE ${subject.table}`);
    await db.query("CHECKPOINT");
    [ran, begun] = [0, undefined];
    const stop = await subject.work();
    await until(() => ran >= jobs);
    await until(async () => (await db.query(subject.left)).rowCount === 0);
    const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
    if (ran !== jobs) throw new Error(`${ran} runs of ${jobs} jobs`);
    await stop();
    return seconds;
}

await drain(Math.ceil(jobs / 10));
console.log(`seconds ${await drain(jobs)}`);
process.exit();
