// SPDX-License-Identifier: MIT
#pragma once

// Rows and their jobs, which go out with COMMIT, and what another connection sees of both.

#include <txhooks/outbox.hpp>

#include "support/trace.hpp"

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

template <int kind>
struct Text {
    std::string text = {};

    friend std::string to_payload(const Text& job) { return job.text; }
    friend void from_payload(std::string_view stored, Text& job) { job.text = stored; }
};
/// Runs right after the COMMIT.
struct Note : Text<0> {
    static constexpr const char* job_name = "note";
};
/// Nobody takes it out of the table.
struct Letter : Text<1> {
    static constexpr const char* job_name = "letter";
};

/// A connection on which each row has a hook, a note and a letter. All four must share their fate.
///
/// Of a scene there are, found by ADL, `stored(scene, name)`, the payloads of the jobs of that name that everybody sees
/// ("1,2"), and `change(scene, sql)`, which another connection runs.
template <class OnScene>
class Sending {
public:
    using Scene = OnScene;
    using Db = typename Scene::Db;
    using Tx = typename Scene::Tx;

    template <class... Arguments>
    explicit Sending(Arguments&&... arguments) : scene{std::forward<Arguments>(arguments)...} {
        types.template handle<Note>([this](const Note& note, txhooks::JobRun& run) {
            ran.push_back(note.text);
            if (act) act(run);
        });
        steps.reserve(1000);  // nobody catches what is thrown there
        types.observe(
            [](void* self, const txhooks::JobEvent& event) noexcept {
                static_cast<Sending*>(self)->steps.push_back(event.step);
            },
            this);
        outbox->create_table();
        insert_first();
    }
    Sending(const Sending&) = delete;
    Sending& operator=(const Sending&) = delete;

    Scene scene;
    Db& db = scene.db;
    Log ran;  // the notes
    std::vector<txhooks::JobEvent::Step> steps;
    std::function<void(txhooks::JobRun&)> act;  // what each does besides
    txhooks::JobTypes<Db> types;
    std::optional<txhooks::Outbox<Db>> outbox{std::in_place, db, types};

    /// The first INSERT of an Outbox is sent by itself.
    void insert_first() {
        outbox->add(Letter{{"first"}});
        change(scene, "DELETE FROM txhooks_job");
    }
    void begin_again() {
        outbox.reset();
        outbox.emplace(db, types);
        insert_first();
    }

    void note(const std::string& text) { outbox->add(Note{{text}}); }
    void letter(const std::string& text, const txhooks::JobOptions& options = {}) {
        outbox->add(Letter{{text}}, options);
    }
    void row(int n) {
        scene.row(n);
        note(std::to_string(n));
        letter(std::to_string(n));
    }

    std::string letters() { return stored(scene, "letter"); }
    std::string notes() { return stored(scene, "note"); }

    /// "1,2": these rows are there with their letters, their hooks and notes have run, and no note is left. Else all that.
    std::string fate() {
        const std::string rows = scene.truth(), run = join(ran);
        if (rows == letters() and rows == run and rows == scene.hooks and notes().empty()) return rows;
        return "rows " + rows + "; letters " + letters() + "; notes " + notes() + "; ran " + run + "; hooks " +
               scene.hooks;
    }

    void forget() {
        change(scene, "DELETE FROM t");
        change(scene, "DELETE FROM txhooks_job");
        ran.clear();
        steps.clear();
        scene.hooks.clear();
    }

    /// Whether blocks go on as if nothing had been: those with jobs, those without, and those with a hook before COMMIT.
    bool goes_on() {
        forget();
        bool asked = false;
        db.atomic([&] { db.before_commit([&] { asked = true; }); });
        if (not asked or fate() != "") return false;
        db.atomic([&] {
            row(1);
            db.atomic([&] {
                row(2);
                db.set_rollback(true);
            });
            db.atomic([&] { row(3); });
        });
        db.atomic([&] {
            row(4);
            db.set_rollback(true);
        });
        return fate() == "1,3" and scene.idle() and db.usable();
    }
};

}  // namespace support
