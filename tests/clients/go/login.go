package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	jackfield "jackfield-session/gen/jackfield/v1"
)

const (
	loginID  = "ada"
	password = "correct horse"
)

// logsIn has the example check log-ins, as a connector and as the connector of an application.
func logsIn(channel *grpc.ClientConn) {
	connector := example(channel)
	testsConnector(channel, connector)
	authenticatesUsers(channel, connector)
	limitsAttempts(channel, connector)
	opensSessions(channel, connector)
}

// example creates a connector to the example, which demands a client certificate.
func example(channel *grpc.ClientConn) *jackfield.Connector {
	call, cancel := deadline()
	defer cancel()
	pem := func(name string) string {
		return string(must(os.ReadFile(filepath.Join(os.Getenv("JACKFIELD_DATA"), "example", name))))
	}
	keys := jackfield.NewKeyServiceClient(channel)
	identity := must(keys.ImportKey(call, &jackfield.ImportKeyRequest{
		Key:           &jackfield.Key{Name: "Example identity", CertificatePem: pem("client.pem")},
		PrivateKeyPem: pem("client-key.pem"),
	})).Key
	equal(identity.Type, jackfield.KeyType_KEY_TYPE_CLIENT_IDENTITY)
	equal(identity.PrivateKeySet, true)
	authority := must(keys.ImportKey(call, &jackfield.ImportKeyRequest{
		Key: &jackfield.Key{Name: "Example authority", CertificatePem: pem("ca.pem")},
	})).Key
	equal(authority.Type, jackfield.KeyType_KEY_TYPE_TRUST_BUNDLE)
	generic := &jackfield.GenericConnector{AuthenticationUrl: "https://" + os.Getenv("JACKFIELD_EXAMPLE") + "/login"}
	return must(jackfield.NewConnectorServiceClient(channel).CreateConnector(call, &jackfield.CreateConnectorRequest{
		Connector: &jackfield.Connector{
			Name:              "Example",
			Kind:              &jackfield.Connector_Generic{Generic: generic},
			ClientIdentityKey: proto.String(identity.Id),
			TrustBundleKey:    proto.String(authority.Id),
		},
	})).Connector
}

// testsConnector reads the verdicts of a test, each as it comes.
func testsConnector(channel *grpc.ClientConn, connector *jackfield.Connector) {
	call, cancel := deadline()
	defer cancel()
	verdicts := must(jackfield.NewConnectorServiceClient(channel).TestConnector(call, &jackfield.TestConnectorRequest{
		Definition: &jackfield.TestConnectorRequest_Reference{Reference: connector.Id},
		LoginId:    loginID,
		Password:   password,
	}))
	reasons := map[jackfield.ConnectorTestStep]jackfield.ConnectorTestReason{}
	for {
		verdict, err := verdicts.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		equal(verdict.Result != jackfield.ConnectorTestResult_CONNECTOR_TEST_RESULT_FAILED, true)
		reasons[verdict.Step] = verdict.Reason
	}
	equal(len(reasons), 11)
	equal(reasons[jackfield.ConnectorTestStep_CONNECTOR_TEST_STEP_CLIENT_CERTIFICATE],
		jackfield.ConnectorTestReason_CONNECTOR_TEST_REASON_CLIENT_CERTIFICATE_ACCEPTED)
	equal(reasons[jackfield.ConnectorTestStep_CONNECTOR_TEST_STEP_STATUS],
		jackfield.ConnectorTestReason_CONNECTOR_TEST_REASON_LOGIN_ACCEPTED)
}

// authenticatesUsers checks a right password and a wrong one. A rejected user is an answer, and no error.
func authenticatesUsers(channel *grpc.ClientConn, connector *jackfield.Connector) {
	call, cancel := deadline()
	defer cancel()
	connectors := jackfield.NewConnectorServiceClient(channel)
	login := &jackfield.AuthenticateUserRequest{Connector: connector.Id, LoginId: loginID, Password: password}
	accepted := must(connectors.AuthenticateUser(call, login))
	equal(accepted.Outcome, jackfield.LoginOutcome_LOGIN_OUTCOME_ACCEPTED)
	equal(accepted.User.Email, "ada@example.com")
	equal(accepted.Registrations[0].Roles, []string{"editor"})
	login.Password = "battery staple"
	rejected := must(connectors.AuthenticateUser(call, login))
	equal(rejected.Outcome, jackfield.LoginOutcome_LOGIN_OUTCOME_REJECTED)
	equal(rejected.User == nil, true)
}

// limitsAttempts guesses passwords until no more are checked. The details of the error say when to try again.
func limitsAttempts(channel *grpc.ClientConn, connector *jackfield.Connector) {
	call, cancel := deadline()
	defer cancel()
	connectors := jackfield.NewConnectorServiceClient(channel)
	var err error
	for range 11 {
		_, err = connectors.AuthenticateUser(call, &jackfield.AuthenticateUserRequest{
			Connector: connector.Id,
			LoginId:   "grace",
			Password:  "battery staple",
			EventInfo: &jackfield.LoginEventInfo{IpAddress: "192.0.2.1"},
		})
		if err != nil {
			break
		}
	}
	details := refused(err, codes.ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED")
	equal(detail[*errdetails.ErrorInfo](details).Metadata["quota"], "user_and_source")
	equal(detail[*errdetails.RetryInfo](details).RetryDelay.AsDuration() > 0, true)
}

// opensSessions logs a user in to an application, and out again.
func opensSessions(channel *grpc.ClientConn, connector *jackfield.Connector) {
	call, cancel := deadline()
	defer cancel()
	applications := jackfield.NewApplicationServiceClient(channel)
	application := must(applications.CreateApplication(call, &jackfield.CreateApplicationRequest{
		Application: &jackfield.Application{Name: "Gallery", Connector: proto.String(connector.Id)},
	})).Application.Id
	login := &jackfield.AuthenticateApplicationUserRequest{
		Application: application, Username: loginID, Password: password,
	}
	opened := must(applications.AuthenticateApplicationUser(call, login))
	equal(opened.Outcome, jackfield.LoginOutcome_LOGIN_OUTCOME_ACCEPTED)
	session := &jackfield.GetSessionUserRequest{Application: application, SessionToken: opened.SessionToken}
	equal(must(applications.GetSessionUser(call, session)).User.Email, "ada@example.com")
	ended := must(applications.EndSession(call, &jackfield.EndSessionRequest{
		Application: application, SessionToken: opened.SessionToken,
	}))
	equal(ended.Ended, true)
	_, err := applications.GetSessionUser(call, session)
	details := refused(err, codes.NotFound, "SESSION_NOT_FOUND")
	equal(detail[*errdetails.ResourceInfo](details).ResourceType, "session")
}
