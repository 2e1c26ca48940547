#!/usr/bin/env bash
# Download the public datasets and unpack them where the scripts look for them.
#
#   ./download.sh                     IMDB-WIKI's face crops: imdb (about 7 GB) and wiki (about 1 GB) into data/
#   ./download.sh wiki                one of them
#   ./download.sh appa-real           APPA-REAL (about 1 GB) into appa-real/
#
# An interrupted transfer resumes, in the same run or the next. An existing dataset is left alone. The archive is deleted
# after unpacking.
#
# Variables: BASE_URL and APPA_URL (addresses of the archives), SPACE_FACTOR (required free disk space as a multiple of
# the archive's size: 2 holds the packed and the unpacked data, 0 skips the check).
set -Eeuo pipefail

BASE_URL=${BASE_URL:-https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/static}
APPA_URL=${APPA_URL:-http://158.109.8.102/AppaRealAge/appa-real-release.zip}
SPACE_FACTOR=${SPACE_FACTOR:-2}
RETRIES=5 # attempts in a row without a new byte

temporary=""
trap '[[ -z $temporary ]] || rm -rf "$temporary"' EXIT
trap 'echo "interrupted: run the same command to resume" >&2; exit 130' INT TERM

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

has() { command -v "$1" >/dev/null 2>&1; }

bytes_of() { # FILE: its size, 0 if there is none
    if [[ -f $1 ]]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

remote_bytes() { # URL: its size according to the server, or nothing
    {
        if has curl; then
            curl --silent --fail --location --head --connect-timeout 30 "$1"
        else
            wget --spider --server-response --tries=1 --timeout=30 "$1" 2>&1
        fi || true
    } | tr -d '\r' | awk 'tolower($1) == "content-length:" { size = $2 } END { print size }'
}

transfer() { # URL FILE: one attempt, appending to FILE
    local quiet=""
    [[ -t 2 ]] || quiet=yes
    if has curl; then
        curl --fail --location --continue-at - --connect-timeout 30 --speed-limit 1 --speed-time 60 \
            ${quiet:+--silent --show-error} --output "$2" "$1"
    else
        wget --continue --tries=1 --timeout=60 ${quiet:+--no-verbose} --output-document="$2" "$1"
    fi
}

fetch() { # URL FILE BYTES: download URL completely to FILE; BYTES is its size, or empty if unknown
    local url=$1 file=$2 bytes=$3 part=$2.part before code useless=0
    if [[ -n $bytes && $(bytes_of "$part") -gt $bytes ]]; then rm -f "$part"; fi
    while [[ -z $bytes || $(bytes_of "$part") -ne $bytes ]]; do
        before=$(bytes_of "$part")
        code=0
        transfer "$url" "$part" || code=$?
        if [[ $code -eq 0 && -z $bytes ]]; then break; fi
        if [[ $code -eq 33 ]]; then rm -f "$part"; fi # curl: this server cannot resume
        if [[ $(bytes_of "$part") -gt $before ]]; then useless=0; else useless=$((useless + 1)); fi
        if [[ -n $bytes && $(bytes_of "$part") -gt $bytes ]]; then
            rm -f "$part"
            fail "$url must send $bytes bytes, but sent more; run this again"
        fi
        if [[ $useless -ge $RETRIES || $code -eq 22 || $code -eq 23 ]]; then # 22: no such file; 23: cannot write
            fail "could not download $url; run this again to resume (the data so far is in $part)"
        fi
        if [[ $code -ne 0 ]]; then
            echo "interrupted at $(bytes_of "$part") bytes, resuming" >&2
            sleep $((useless + 1))
        fi
    done
    mv "$part" "$file"
}

check_space() { # FOLDER BYTES PRESENT: fail without space for an archive of BYTES and its content; PRESENT bytes exist
    local free needed
    free=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
    needed=$(awk -v bytes="$2" -v factor="$SPACE_FACTOR" -v present="$3" \
        'BEGIN { need = (bytes * factor - present) / 1024; printf "%.0f", (need > 0 ? need : 0) }')
    if [[ $free -lt $needed ]]; then
        fail "$1 needs about $((needed / 1024)) MB of free disk space, got $((free / 1024)) MB; \
free some or set SPACE_FACTOR (now $SPACE_FACTOR)"
    fi
}

unpack() { # ARCHIVE FOLDER NAME MARKER: unpack folder NAME, which must hold the file MARKER, into FOLDER in one step
    local archive=$1 folder=$2 name=$3 marker=$4
    echo "unpacking $archive"
    temporary=$(mktemp -d "$folder/.unpack.XXXXXX")
    if [[ $archive == *.tar ]]; then
        tar -xf "$archive" -C "$temporary"
    elif has unzip; then
        unzip -q "$archive" -d "$temporary"
    else
        python3 -m zipfile -e "$archive" "$temporary"
    fi || fail "could not unpack $archive; unless the disk is full the archive is damaged: delete it and run this again"
    [[ -f $temporary/$name/$marker ]] || fail "$archive does not contain $name/$marker; delete it and run this again"
    mv "$temporary/$name" "$folder/$name"
    rm -rf "$temporary" "$archive"
    temporary=""
}

get() { # URL FOLDER NAME MARKER MEGABYTES: MEGABYTES is the approximate size, for servers that do not send it
    local url=$1 folder=$2 name=$3 marker=$4 megabytes=$5 archive bytes
    archive=$folder/$name.${url##*.}
    if [[ -f $folder/$name/$marker ]]; then
        echo "$folder/$name already exists"
        return
    fi
    [[ ! -e $folder/$name ]] || fail "$folder/$name exists without $marker; move it away and run this again"
    mkdir -p "$folder"
    bytes=$(remote_bytes "$url")
    if [[ -f $archive && -n $bytes && $(bytes_of "$archive") -ne $bytes ]]; then
        mv "$archive" "$archive.part" # incomplete, from another program
    fi
    check_space "$folder" "${bytes:-${megabytes}000000}" "$(($(bytes_of "$archive") + $(bytes_of "$archive.part")))"
    if [[ ! -f $archive ]]; then
        echo "downloading $url (${bytes:-about ${megabytes}000000} bytes)"
        fetch "$url" "$archive" "$bytes"
    fi
    unpack "$archive" "$folder" "$name" "$marker"
    echo "$folder/$name is ready"
}

cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ $# -eq 0 ]]; then set -- imdb wiki; fi
for wanted in "$@"; do
    case $wanted in
        imdb | wiki | appa-real) ;;
        *) fail "dataset must be imdb, wiki or appa-real, got '$wanted'" 2 ;;
    esac
done
has curl || has wget || fail "curl or wget is required; install one of them"
for wanted in "$@"; do
    case $wanted in
        imdb) get "$BASE_URL/imdb_crop.tar" data imdb_crop imdb.mat 7000 ;;
        wiki) get "$BASE_URL/wiki_crop.tar" data wiki_crop wiki.mat 1000 ;;
        appa-real) get "$APPA_URL" appa-real appa-real-release gt_avg_test.csv 1000 ;;
    esac
done
