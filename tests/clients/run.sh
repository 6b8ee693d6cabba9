# Sessions with real clients and proxies: their tools, and a server for each session. tests/run sources this file.
# Each set of tools has its own directory in $TOOLS, named by the checksum of the files that define it. Directories are never
# changed: other content makes another directory.

# install_clients: sets have_cloudspot, have_go, have_java and have_node. All of them need the Python tools, buf and grpcio.
install_clients() {
  have_cloudspot=no have_go=no have_java=no have_node=no
  [ "$have_python" = yes ] || return
  install_cloudspot && have_cloudspot=yes
  install_go && have_go=yes
  install_java && have_java=yes
  install_node && have_node=yes
}

client_tests() {
  local have_documents=no have_nginx_session=no
  [ "$have_grpcurl" = yes ] && [ "$have_python" = yes ] && have_documents=yes
  [ "$have_nginx" = yes ] && [ "$have_python" = yes ] && have_nginx_session=yes
  client_test "grpcurl session" grpcurl_session "$have_grpcurl" "grpcurl or jq"
  client_test "session of README.md" readme_session "$have_documents" "grpcurl, jq or Python"
  client_test "session of docs/session.md" document_session "$have_documents" "grpcurl, jq or Python"
  client_test "session of deploy/guide/sources.md" sources_session "$have_documents" "grpcurl, jq or Python"
  client_test "examples at a taken address" taken_address yes
  client_test "Python grpcio session" python_session "$have_python" "the Python packages"
  client_test "Python grpcio, ordinary hardship" python_ordinary "$have_python" "the Python packages"
  client_test "Python grpcio, the Fiscus page" python_fiscus "$have_python" "the Python packages"
  client_test "Go session" go_session "$have_go" "Go or its plugins for protobuf"
  client_test "Java session" java_session "$have_java" "Java, Maven or the libraries"
  client_test "Node session" node_session "$have_node" "Node or its packages"
  # Without Jackfield's PINGs, which nginx takes as activity on every stream.
  local options=(--set limits.max_connections_per_ip=10 --set limits.keepalive_interval=10m)
  client_test "Envoy" envoy_session "$have_python" "Envoy, a Python package," "${options[@]}"
  client_test "nginx" nginx_session "$have_nginx_session" "nginx, or a Python package," "${options[@]}"
}

# client_test NAME FUNCTION THERE WHAT OPTION…: runs a session with its own server, which has these options, if the tools
# of the session are there.
client_test() {
  if [ "$3" = yes ]; then
    step "$1" with_server "$2" "${@:5}"
  else
    skip "$1: $4 is not installed and could not be"
  fi
}

# --- Tools ------------------------------------------------------------------------------------------------------------

# tools_for NAME FILE…: the directory of the tools that these files define.
tools_for() {
  echo "$TOOLS/$1-$(cat "${@:2}" | cksum | cut -d' ' -f1)"
}

install_go() {
  command -v go >/dev/null || return 1
  GO_TOOLS=$(tools_for go tests/clients/go/go.mod tests/clients/go/go.sum)
  [ ! -e "$GO_TOOLS/complete" ] || return 0
  installing "plugins for Go"
  GOBIN=$GO_TOOLS logged go -C tests/clients/go install tool && touch "$GO_TOOLS/complete"
}

install_java() {
  local program
  command -v javac >/dev/null && command -v mvn >/dev/null || return 1
  JAVA_TOOLS=$(tools_for java tests/clients/java/pom.xml)
  [ ! -e "$JAVA_TOOLS/complete" ] || return 0
  installing "libraries for Java" && rm -rf "$JAVA_TOOLS"
  logged mvn --quiet --batch-mode --file tests/clients/java/pom.xml dependency:copy-dependencies \
    -DoutputDirectory="$JAVA_TOOLS/lib" -Dplatform="linux-$(uname -m | sed 's/aarch64/aarch_64/')" || return 1
  # Maven's file names contain versions.
  mkdir "$JAVA_TOOLS/bin"
  for program in protoc protoc-gen-grpc-java; do
    mv "$JAVA_TOOLS/lib/$program"-[0-9]*.exe "$JAVA_TOOLS/bin/$program" && chmod +x "$JAVA_TOOLS/bin/$program" || return 1
  done
  touch "$JAVA_TOOLS/complete"
}

install_node() {
  command -v npm >/dev/null || return 1
  NODE_TOOLS=$(tools_for node tests/clients/node/package.json tests/clients/node/package-lock.json)
  [ ! -e "$NODE_TOOLS/complete" ] || return 0
  installing "packages for Node" && rm -rf "$NODE_TOOLS" && mkdir "$NODE_TOOLS"
  cp tests/clients/node/package*.json "$NODE_TOOLS"
  logged npm --prefix "$NODE_TOOLS" ci --ignore-scripts --no-audit --no-fund && touch "$NODE_TOOLS/complete"
}

# The OAuth servers that tests start. The scripts that run them are not part of the directory.
install_providers() {
  command -v node >/dev/null && command -v npm >/dev/null || return 1
  NPM_PROVIDERS=$(tools_for providers tests/providers/package.json tests/providers/package-lock.json)
  export NPM_PROVIDERS
  [ ! -e "$NPM_PROVIDERS/complete" ] || return 0
  installing "OAuth servers for Node" && rm -rf "$NPM_PROVIDERS" && mkdir "$NPM_PROVIDERS"
  cp tests/providers/package*.json "$NPM_PROVIDERS"
  logged npm --prefix "$NPM_PROVIDERS" ci --ignore-scripts --no-audit --no-fund && touch "$NPM_PROVIDERS/complete"
}

# Each release of the client has its own directory, because only one of them can be in an environment.
install_cloudspot() {
  local requirements
  [ "$have_python" = yes ] || return 1
  CLOUDSPOT_CLIENTS=$(tools_for cloudspot tests/clients/cloudspot/*.txt)
  export CLOUDSPOT_CLIENTS
  [ ! -e "$CLOUDSPOT_CLIENTS/complete" ] || return 0
  installing "clients of the licence API" && rm -rf "$CLOUDSPOT_CLIENTS"
  for requirements in tests/clients/cloudspot/*.txt; do
    logged "$VENV/bin/pip" install --quiet --no-deps --target "$CLOUDSPOT_CLIENTS/$(basename "$requirements" .txt)" \
      -r "$requirements" || return 1
  done
  touch "$CLOUDSPOT_CLIENTS/complete"
}

# --- Sessions ---------------------------------------------------------------------------------------------------------

grpcurl_session() {
  tests/clients/session.sh
}

# The document has the reader start the examples in other shells. Here they have free ports.
readme_session() {
  with_example login-backend with_provider "$VENV/bin/python" tests/clients/document.py README.md "A session"
}

document_session() {
  "$VENV/bin/python" tests/clients/document.py docs/session.md
}

sources_session() {
  with_source "$VENV/bin/python" tests/clients/document.py deploy/guide/sources.md "A gRPC endpoint"
}

# The address of the server is taken. Each example says so.
taken_address() {
  local name said arguments
  for name in credential-source login-backend oauth-provider; do
    arguments=("$JACKFIELD_DATA/taken")
    [ "$name" != oauth-provider ] || arguments=()
    said=$(timeout 30 "$(program "$name")" "${arguments[@]}" "$JACKFIELD_ADDRESS" 2>&1)
    [[ $said == *"cannot listen on $JACKFIELD_ADDRESS: "* ]] || { echo "$name says: $said" && return 1; }
  done
}

python_session() {
  "$VENV/bin/python" tests/clients/session.py
}

python_ordinary() {
  "$VENV/bin/python" tests/clients/ordinary.py
}

python_fiscus() {
  with_example credential-source "$VENV/bin/python" tests/clients/fiscus.py
}

# The code is generated with the configuration files that users are to use.
go_session() {
  local directory=$WORK/go
  mkdir -p "$directory" && cp tests/clients/go/* "$directory" || return
  (cd proto && PATH=$GO_TOOLS:$PATH buf generate --template buf.gen.go.yaml --output "$directory/gen") || return
  go -C "$directory" build -o session . && with_example login-backend "$directory/session"
}

java_session() {
  local directory=$WORK/java
  mkdir -p "$directory/gen" || return
  (cd proto && PATH=$JAVA_TOOLS/bin:$PATH buf generate --template buf.gen.java.yaml --output "$directory/gen") || return
  find "$directory/gen" -name '*.java' >"$directory/sources"
  javac -d "$directory/classes" -cp "$JAVA_TOOLS/lib/*" @"$directory/sources" tests/clients/java/Session.java || return
  with_example login-backend java -cp "$directory/classes:$JAVA_TOOLS/lib/*" Session
}

node_session() {
  local directory=$WORK/node
  mkdir -p "$directory" && cp tests/clients/node/* "$directory" && ln -s "$NODE_TOOLS/node_modules" "$directory" || return
  "$JACKFIELD" descriptors --out "$directory/jackfield.binpb" || return
  (cd "$directory" && PATH=$NODE_TOOLS/node_modules/.bin:$PATH &&
    buf generate --template "$OLDPWD/proto/buf.gen.typescript.yaml" --output gen && tsc) || return
  with_example login-backend node "$directory/out/session.js"
}

envoy_session() {
  "$VENV/bin/python" tests/clients/proxies.py envoy
}

nginx_session() {
  PATH=$PATH:/usr/sbin "$VENV/bin/python" tests/clients/proxies.py nginx
}

# --- The server -------------------------------------------------------------------------------------------------------

# with_server COMMAND OPTION…: starts an embedded server on an empty data directory, a free port and a Unix socket, runs a
# command that finds it through the environment, and stops the server, which has to end without an error.
with_server() {
  local directory
  directory=$(mktemp -d "$WORK/server.XXXXXX")
  JACKFIELD=$(program jackfield)
  export JACKFIELD JACKFIELD_DATA=$directory/data JACKFIELD_SOCKET=$directory/jackfield.sock
  touch "$directory/out"
  "$JACKFIELD" serve --data-dir "$JACKFIELD_DATA" --set listen.address=127.0.0.1:0 \
    --set listen.unix_socket="$JACKFIELD_SOCKET" --set listen.plaintext_principal=operator --set drain.delay=0s "${@:2}" \
    >"$directory/out" 2>"$directory/log" &
  SERVER=$!
  local status=0
  # The line for grpcurl has the address.
  if JACKFIELD_ADDRESS=$(await_text "$SERVER" "$directory/out" '127\.0\.0\.1:[0-9]+ list' | cut -d' ' -f1); then
    export JACKFIELD_ADDRESS
    "$1" || status=$?
  else
    echo "the server did not start" && status=1
  fi
  kill "$SERVER" 2>/dev/null
  wait "$SERVER" || { echo "the server ended with exit code $?" && status=1; }
  SERVER=
  [ "$status" -eq 0 ] || tail -n 40 "$directory/out" "$directory/log"
  return "$status"
}

# with_example NAME COMMAND…: runs a command while the example of this name listens at a free port.
# Its certificates are in $JACKFIELD_DATA/example, and JACKFIELD_EXAMPLE is its host and port.
with_example() {
  with_program JACKFIELD_EXAMPLE "$1" "$JACKFIELD_DATA/example" 127.0.0.1:0 -- "${@:2}"
}

# with_provider COMMAND…: the same with the example of an OAuth provider, whose host and port is JACKFIELD_PROVIDER.
with_provider() {
  with_program JACKFIELD_PROVIDER oauth-provider 127.0.0.1:0 -- "$@"
}

# with_source COMMAND…: the same with the example of a credential source, whose host and port is JACKFIELD_SOURCE. Its certificates are in
# $JACKFIELD_DATA/source.
with_source() {
  with_program JACKFIELD_SOURCE credential-source "$JACKFIELD_DATA/source" 127.0.0.1:0 -- "$@"
}

# with_program VARIABLE PROGRAM ARGUMENT… -- COMMAND…: runs a command while another program runs that says its host and port.
with_program() {
  local variable=$1 name=$2 arguments=() status=0 process address
  shift 2
  while [ "$1" != -- ]; do arguments+=("$1") && shift; done
  shift
  local said=$JACKFIELD_DATA/$name.out
  touch "$said"
  "$(program "$name")" "${arguments[@]}" >"$said" 2>&1 &
  process=$!
  EXAMPLES="$EXAMPLES $process"
  if address=$(await_text "$process" "$said" 'localhost:[0-9]+'); then
    export "$variable=$address"
    "$@" || status=$?
  else
    echo "$name did not start:" && cat "$said" && status=1
  fi
  kill "$process" 2>/dev/null
  wait "$process" 2>/dev/null
  EXAMPLES=${EXAMPLES/ $process/}
  return "$status"
}

# program NAME: the path of a program that was built.
program() {
  echo "${CARGO_TARGET_DIR:-$PWD/target}/debug/$1"
}

# await_text PROCESS FILE PATTERN: waits until a process has written what matches, and prints that.
await_text() {
  local attempt
  for attempt in $(seq 300); do
    grep -oEm1 "$3" "$2" && return
    kill -0 "$1" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
